"""``haloflow fit``."""
# ruff: noqa: PLC0415

import logging

import click

from pipeline.commands.common import options, show, told_in_a_line
from pipeline.commands.progress import shown


@click.command()
@click.argument("config")
@click.option("--labels", required=True, metavar="FILE.csv", help="A table with the columns image and label.")
@click.option("--output", metavar="FILE.yaml", help="Where the votes go. [default: the file that the config names]")
@options("cluster", "workers", "memory", "kernel", "overwrite", "set", "storage", "allow", "json", "quiet")
def fit(
    config: str,
    labels: str,
    output: str | None,
    cluster: str,
    workers: int | None,
    memory: str | None,
    kernel: str | None,
    overwrite: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Learn the votes of a CONFIG from labelled images; features and other layers stay as they are."""
    import pipeline

    logging.disable(logging.CRITICAL)
    with told_in_a_line(), shown(as_json=False, quiet=quiet or as_json) as progress:
        found = pipeline.fit(
            config,
            labels,
            output,
            settings=settings,
            cluster=cluster,
            workers=workers,
            memory=memory,
            kernel=kernel,
            overwrite=overwrite,
            progress=progress,
        )
    show(found, as_json=as_json, quiet=quiet)
