"""What verbs share: options of one name and one meaning, how a config is read, how results and progress are shown."""
# ruff: noqa: PLC0415

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

VARIABLE = "HALOFLOW_STORAGE_OPTIONS"
"""The environment variable that holds storage options, as a JSON object (said here, too, for a fast ``--help``)."""

ALLOW = "HALOFLOW_ALLOW"
"""The environment variable of what is allowed besides, said here, too, for the same reason."""

if TYPE_CHECKING:
    from pipeline.job import Job


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of these names, in this order."""
    known = {
        "set": click.option(
            "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Change a value of the config."
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Print JSON to standard output."),
        "quiet": click.option("--quiet", is_flag=True, help="Print nothing but errors."),
        "cluster": click.option(
            "--cluster",
            default="local",
            show_default=True,
            metavar="local|threads|serial|ADDRESS|FILE",
            help="Where to run: a process a worker, threads, one task after another, a scheduler, or what a YAML file "
            "says.",
        ),
        "workers": click.option("--workers", type=click.IntRange(1), help="How many workers. [default: one a core]"),
        "memory": click.option(
            "--memory",
            metavar="SIZE",
            help="What one worker may hold, such as 2GB. [default: a core's share]",
        ),
        "kernel": click.option(
            "--kernel", metavar="NAME", help="Force a kernel for all layers: 'plan' shows those chosen."
        ),
        "missing": click.option(
            "--missing",
            type=click.Choice(["fill", "error"]),
            help="What a chunk is that is not stored: fill value, or a reason to refuse its image. [input.missing]",
        ),
        "resume": click.option(
            "--resume", is_flag=True, help="Go on with what an earlier run made: do only what it has no record of."
        ),
        "checksums": click.option(
            "--checksums",
            is_flag=True,
            help="With --resume: read again what was written, and make anew what is not as its record says.",
        ),
        "storage": click.option(
            "--storage-option",
            multiple=True,
            metavar="KEY=VALUE",
            expose_value=False,
            callback=_offer,
            help="What opens a bucket, such as anon=true or profile=NAME; written nowhere.",
        ),
        "allow": click.option(
            "--allow",
            multiple=True,
            metavar="codec:NAME|scheme:NAME",
            expose_value=False,
            callback=_allow,
            help="Read what needs a codec, or a kind of URL, that is not known to do no harm.",
        ),
        "overwrite": click.option("--overwrite", is_flag=True, help="Replace what an earlier run made."),
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = known[name](command)
        return command

    return decorate


def _offer(context: click.Context, parameter: click.Parameter, options: tuple[str, ...]) -> None:
    """Let storage options stand in the environment as long as a command lasts, before those that stand there."""
    del parameter
    given: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not name or not equals:
            raise click.UsageError("--storage-option: expected KEY=VALUE, such as anon=true")  # its value may be secret
        *above, last = name.split(".")
        place = given
        for part in above:
            place = place.setdefault(part, {})
        place[last] = {"true": True, "false": False}.get(text, text)
    if not given:
        return
    try:
        outer = json.loads(os.environ.get(VARIABLE) or "{}")
    except ValueError:
        outer = None
    if not isinstance(outer, dict):
        raise click.UsageError(f"{VARIABLE}: expected a JSON object")
    context.with_resource(_environment(VARIABLE, json.dumps({**outer, **given})))


def _allow(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> None:
    """Let what is allowed stand in the environment as long as a command lasts, beside what stands there."""
    del parameter
    if words:
        context.with_resource(_environment(ALLOW, " ".join([os.environ.get(ALLOW, ""), *words])))


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def load(config: str, settings: tuple[str, ...], missing: str | None = None) -> "Job":
    """Return the job of a config file, with the user's ``--set`` changes, and with ``--missing`` where it is given."""
    import pipeline

    return pipeline.load(config, (*settings, f"input.missing={missing}") if missing else settings)


def show(found: Any, *, as_json: bool, quiet: bool = False) -> None:
    """Print a result in words, or as JSON; quiet takes the words away."""
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    elif not quiet:
        click.echo(str(found))


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Show our own warnings as a line each; those of libraries are left as they are."""
    from pipeline.errors import HaloflowWarning

    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show_in_a_line(message: Warning | str, category: type[Warning], *where: Any, **named: Any) -> None:
            if issubclass(category, HaloflowWarning):
                click.echo(f"warning: {message}", err=True)
            else:
                shown(message, category, *where, **named)

        warnings.showwarning = show_in_a_line
        warnings.simplefilter("always", HaloflowWarning)
        yield


@contextmanager
def progress_bar(what: str, unit: str, *, quiet: bool) -> Iterator["Callable[[int, int], None] | None"]:
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
