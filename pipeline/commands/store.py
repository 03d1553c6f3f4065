"""What can be said of what stands there: ``haloflow verify``, ``status`` and ``info``."""
# ruff: noqa: PLC0415

import json

import click

from pipeline.commands.common import load, options, show
from pipeline.errors import RunError


@click.command()
@click.argument("config")
@click.option(
    "--windows",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Windows of each map to recompute.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random windows.")
@click.option("--checksums", is_flag=True, help="Read all that was written again and hold it against its records.")
@options("set", "storage", "allow", "json", "quiet")
def verify(
    config: str, windows: int, seed: int, checksums: bool, settings: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Recompute windows of CONFIG's output from the raw input in float64 and say how far off the store is."""
    import pipeline
    from pipeline.status import check

    job = load(config, settings)
    found = check(job.output.store) if checksums else pipeline.verify(job, windows=windows, seed=seed)
    show(found, as_json=as_json, quiet=quiet)
    if not found.passed:
        remedy = "make it anew with 'haloflow run --overwrite'"
        if checksums:
            remedy = "'haloflow run --resume --checksums' makes anew what was damaged"
        told = f"{job.output.store} is not what it should be; {remedy}"
        if isinstance(found, pipeline.Verification) and found.config:
            told = f"{job.output.store} was made with another config; verify it with that one, or the same --set"
        raise RunError(f"{found}\n{told}" if as_json or quiet else told)


@click.command()
@click.argument("store")
@options("storage", "allow", "json")
def status(store: str, as_json: bool) -> None:
    """Say how far the run of a STORE is: done, failed and missing, how fast, and who holds it."""
    from pipeline.status import status as status_of

    show(status_of(store), as_json=as_json)


@click.command()
@click.argument("path")
@options("storage", "allow", "json")
def info(path: str, as_json: bool) -> None:
    """Say what stands at PATH: an image, or a store that haloflow made."""
    from pipeline.inspection import inspect, inspect_text

    found = inspect(path)
    click.echo(json.dumps(found, indent=2) if as_json else inspect_text(found))
