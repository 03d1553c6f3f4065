"""The command line: words and exit codes over the Python interface.

0 done; 2 refused before any work; 3 ran, but something failed; 130 and 143 interrupted; 1 a bug. Modules that take
long to load are imported by the command that needs them, so that ``haloflow --help`` answers at once.
"""
# ruff: noqa: PLC0415

import atexit
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.errors import HaloflowError, RunError

if TYPE_CHECKING:
    from pipeline.job import Job


class _Terminated(BaseException):
    """SIGTERM came."""


def _options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    known = {
        "set": click.option(
            "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Change a value of the config."
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Print JSON to standard output."),
        "quiet": click.option("--quiet", is_flag=True, help="Print nothing but errors."),
        "memory": click.option(
            "--memory",
            metavar="SIZE",
            help="What one worker may hold, such as 2GB. [default: a core's share]",
        ),
        "kernel": click.option("--kernel", metavar="NAME", help="Force a kernel: onnxruntime or numpy."),
        "overwrite": click.option("--overwrite", is_flag=True, help="Replace what an earlier run made."),
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = known[name](command)
        return command

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="haloflow", prog_name="haloflow")
def cli() -> None:
    """Run stacks of convolution and pooling layers over chunked images too large for memory."""


@cli.command()
@click.argument("config")
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    metavar="local|threads|serial|ADDRESS",
    help="Where to run: a process a worker, threads, one task after another, or a Dask scheduler.",
)
@click.option("--workers", type=click.IntRange(1), help="How many workers. [default: one a core]")
@_options("memory", "kernel", "overwrite", "set", "json", "quiet")
def run(
    config: str,
    cluster: str,
    workers: int | None,
    memory: str | None,
    kernel: str | None,
    overwrite: bool,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a CONFIG: read the images, make the maps, write the output store."""
    import pipeline

    planned = pipeline.plan(_load(config, settings), memory=memory, kernel=kernel)
    # What the cluster logs of a lost worker or scheduler is told by the outcome, in one line.
    logging.disable(logging.CRITICAL)
    with _progress(planned.store, "tasks", quiet=quiet or as_json) as progress:
        report = pipeline.run(planned, cluster, workers, overwrite=overwrite, progress=progress)
    _print(report, as_json=as_json, quiet=quiet)
    if not report.complete:
        raise RunError(f"{report.tasks - report.done} of {report.tasks} tasks failed; the rest is complete")


@cli.command()
@click.argument("config")
@_options("memory", "kernel", "set", "json", "quiet")
def plan(
    config: str, memory: str | None, kernel: str | None, settings: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Say what a run of CONFIG would do: extents, halo, kernels, tasks, bytes, memory and time."""
    import pipeline

    _print(pipeline.plan(_load(config, settings), memory=memory, kernel=kernel), as_json=as_json, quiet=quiet)


@cli.command()
@click.argument("config")
@_options("set", "quiet")
def validate(config: str, settings: tuple[str, ...], quiet: bool) -> None:
    """Check a CONFIG and its features, without the images."""
    job = _load(config, settings)
    if not quiet:
        layers = " → ".join(job.stack.names)
        click.echo(f"{config}: valid: {len(job.features)} features; layers {layers}")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from pipeline.config import schema as config_schema

    click.echo(json.dumps(config_schema(), indent=2))


@cli.command()
@click.argument("image")
@click.argument("store")
@click.option("--chunks", type=click.IntRange(1), default=1024, show_default=True, help="Chunk edge in pixels.")
@click.option(
    "--compression",
    type=click.Choice(["lz4", "zstd", "none"]),
    default="lz4",
    show_default=True,
    help="Codec.",
)
@_options("memory", "overwrite", "json", "quiet")
def ingest(
    image: str,
    store: str,
    chunks: int,
    compression: str,
    memory: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn an IMAGE file (TIFF, PNG, JPEG) into a chunked OME-Zarr image at STORE, band by band."""
    import pipeline

    with _progress(store, "chunks", quiet=quiet or as_json) as progress:
        made = pipeline.ingest(
            image,
            store,
            chunks=chunks,
            compression=compression,
            memory=memory or "1GB",
            overwrite=overwrite,
            progress=progress,
        )
    _print(made, as_json=as_json, quiet=quiet)


@cli.command()
@click.argument("config")
@click.option(
    "--windows",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Windows of each map to recompute.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random windows.")
@_options("set", "json", "quiet")
def verify(config: str, windows: int, seed: int, settings: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Recompute windows of CONFIG's output from the raw input in float64 and say how far off the store is."""
    import pipeline

    found = pipeline.verify(_load(config, settings), windows=windows, seed=seed)
    _print(found, as_json=as_json, quiet=quiet)
    if not found.passed:
        raise RunError(str(found))


@cli.command()
@click.argument("path")
@_options("json")
def info(path: str, as_json: bool) -> None:
    """Say what stands at PATH: an image, or a store that haloflow made."""
    from pipeline.inspection import inspect, inspect_text

    found = inspect(path)
    click.echo(json.dumps(found, indent=2) if as_json else inspect_text(found))


def _load(config: str, settings: tuple[str, ...]) -> "Job":
    import pipeline

    return pipeline.load(config, settings)


def _print(found: Any, *, as_json: bool, quiet: bool = False) -> None:
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    elif not quiet:
        click.echo(str(found))


@contextmanager
def _progress(what: str, unit: str, *, quiet: bool) -> Iterator["Callable[[int, int], None] | None"]:
    """Give a function of (done, all) that shows a bar on a terminal; elsewhere the report at the end says it all."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        row = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Terminated


def main() -> None:
    """Run the command line and end with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except HaloflowError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _end_at_once("interrupted", 130)
    except _Terminated:
        _end_at_once("terminated", 143)
    sys.exit(code)


def _end_at_once(word: str, code: int) -> NoReturn:
    """End an interrupted run with its exit code, whatever state its cluster is in.

    A cluster that was only half made raises when Python closes it at exit: its handlers are run here, unheard.
    """
    click.echo(word, err=True)
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way to run them early
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
