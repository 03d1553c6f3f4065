"""``haloflow run``."""
# ruff: noqa: PLC0415

import logging

import click

from pipeline.commands.common import load, options, show, told_in_a_line
from pipeline.commands.progress import shown
from pipeline.errors import RunError

TOLD = 20
"""Failures that a quiet run tells at the most; others have told them all, and the store does."""


@click.command()
@click.argument("config")
@options("cluster", "workers")
@click.option(
    "--performance-report",
    metavar="FILE.html",
    help="Write Dask's report on how the workers spent their time. [extra: dashboard]",
)
@options("memory", "kernel", "missing", "resume", "checksums", "overwrite", "set", "storage", "allow", "json", "quiet")
def run(
    config: str,
    cluster: str,
    workers: int | None,
    performance_report: str | None,
    memory: str | None,
    kernel: str | None,
    missing: str | None,
    resume: bool,
    checksums: bool,
    overwrite: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a CONFIG: read the images, make the maps, write the output store.

    With --json standard output has an event a line, each with its name under "event": "started" (store, images,
    cluster, workers, dashboard), "progress" once a second (tasks, done, failed, images, images_done, pixels,
    bytes_read, bytes_written, retries, seconds, seconds_left, megapixels_per_second), "task failed" (image, task,
    reason), "image done" (image, failed), "writing tables" once a second after all tasks (images, images_written), and
    "finished", the last, which is the report. A run that is refused has none of them, and one that is interrupted no
    "finished".
    """
    import pipeline
    from pipeline.clusters import memory_of

    job = load(config, settings, missing)
    planned = pipeline.plan(job, memory=memory_of(cluster, memory), kernel=kernel)
    # What the cluster logs of a lost worker or scheduler is told by the outcome, in one line.
    logging.disable(logging.CRITICAL)
    with told_in_a_line(), shown(as_json=as_json, quiet=quiet) as progress:
        report = pipeline.run(
            planned,
            cluster,
            workers,
            overwrite=overwrite,
            resume=resume,
            checksums=checksums,
            progress=progress,
            performance_report=performance_report,
        )
    show(report, as_json=False, quiet=quiet or as_json)
    if not report.complete:
        rest = "the rest is complete" if report.done else "nothing is complete"
        count = f"{len(report.failures)} failed (tasks, or whole images); {rest}: again with --resume"
        raise RunError("\n".join([count, *report.failed[: TOLD if quiet else 0]]))
