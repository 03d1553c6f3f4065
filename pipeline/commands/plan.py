"""What can be said before a run: ``haloflow plan``, ``validate`` and ``schema``."""
# ruff: noqa: PLC0415

import json

import click

from pipeline.commands.common import load, options, show
from pipeline.errors import counted


@click.command()
@click.argument("config")
@options("memory", "kernel", "missing", "set", "storage", "allow", "json", "quiet")
def plan(
    config: str,
    memory: str | None,
    kernel: str | None,
    missing: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Say what a run of CONFIG would do: extents, halo, kernels, tasks, bytes, memory and time."""
    import pipeline
    from pipeline.storage.target import check_apart

    planned = pipeline.plan(load(config, settings, missing), memory=memory, kernel=kernel)
    check_apart(planned.store, planned.reads)
    show(planned, as_json=as_json, quiet=quiet)


@click.command()
@click.argument("config")
@options("set", "storage", "allow", "quiet")
def validate(config: str, settings: tuple[str, ...], quiet: bool) -> None:
    """Check a CONFIG and its features, without the images."""
    job = load(config, settings)
    if not quiet:
        layers = " → ".join(job.stack.names)
        click.echo(f"{config}: valid: {counted(len(job.features), 'feature')}; layers {layers}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from pipeline.config import schema as config_schema

    click.echo(json.dumps(config_schema(), indent=2))
