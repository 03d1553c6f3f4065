"""``haloflow run``."""
# ruff: noqa: PLC0415

import logging

import click

from pipeline.commands.common import load, options, progress_bar, show, told_in_a_line
from pipeline.errors import RunError


@click.command()
@click.argument("config")
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    metavar="local|threads|serial|ADDRESS|FILE",
    help="Where to run: a process a worker, threads, one task after another, a scheduler, or what a YAML file says.",
)
@click.option("--workers", type=click.IntRange(1), help="How many workers. [default: one a core]")
@options("memory", "kernel", "resume", "overwrite", "set", "storage", "json", "quiet")
def run(
    config: str,
    cluster: str,
    workers: int | None,
    memory: str | None,
    kernel: str | None,
    resume: bool,
    overwrite: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a CONFIG: read the images, make the maps, write the output store."""
    import pipeline
    from pipeline.clusters import manager

    job = load(config, settings)
    if memory is None and cluster != "serial":
        memory = manager(cluster).memory
    planned = pipeline.plan(job, memory=memory, kernel=kernel)
    # What the cluster logs of a lost worker or scheduler is told by the outcome, in one line.
    logging.disable(logging.CRITICAL)
    with told_in_a_line(), progress_bar(str(planned.store), "tasks", quiet=quiet or as_json) as progress:
        report = pipeline.run(planned, cluster, workers, overwrite=overwrite, resume=resume, progress=progress)
    show(report, as_json=as_json, quiet=quiet)
    if not report.complete:
        raise RunError(
            f"{len(report.failures)} failed, of {report.tasks} tasks; the rest is complete: again with --resume"
        )
