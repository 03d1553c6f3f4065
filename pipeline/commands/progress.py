"""How a run is shown while it goes on: a display on a terminal, now and then a line elsewhere, or JSON."""
# ruff: noqa: PLC0415

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from pipeline.execute.watching import Event, Progress, WritingTables

LINES = 20.0
"""Seconds between two lines where there is no terminal."""

EVENTS = 1.0
"""Seconds between two events of progress."""


@contextmanager
def shown(*, as_json: bool, quiet: bool) -> Iterator["Callable[[Event], None] | None"]:
    """Give what listens to a run: JSON to standard output, and else to standard error what suits it."""
    if as_json:
        yield _Json()
    elif quiet:
        yield None
    elif sys.stderr.isatty():
        with _display() as bars:
            yield _Display(bars)
    else:
        yield _Lines()


class _Json:
    """An event a line; how far it is at most once in `EVENTS`, and how far it was with the tasks at their end."""

    def __init__(self) -> None:
        self.last = -EVENTS
        self.held: Progress | None = None

    def __call__(self, event: "Event") -> None:
        from pipeline.execute.watching import Finished, Progress, WritingTables, plain

        if isinstance(event, Progress):
            self.held = event
        if isinstance(event, Progress | WritingTables):
            if time.monotonic() - self.last < EVENTS:
                return
            self.last = time.monotonic()
        if self.held and isinstance(event, Progress | WritingTables | Finished):
            click.echo(json.dumps(plain(self.held)))
            self.held = None
        if not isinstance(event, Progress):
            click.echo(json.dumps(plain(event)))


class _Lines:
    """A line at the beginning, and one in `LINES`; what failed is told by the report at the end."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, event: "Event") -> None:
        from pipeline.execute.watching import Progress, Started, WritingTables

        if isinstance(event, Started):
            there = f"; dashboard {event.dashboard}" if event.dashboard else ""
            click.echo(
                f"{event.store}: {counted(event.images, 'image')} on {counted(event.workers, 'worker')}{there}",
                err=True,
            )
        elif isinstance(event, Progress | WritingTables) and time.monotonic() - self.last >= LINES:
            self.last = time.monotonic()
            if isinstance(event, Progress):
                words = [f"{event.done + event.failed} of {event.tasks} tasks", *_words(event)]
            else:
                words = [_tables(event)]
            click.echo(", ".join(words), err=True)


class _Display:
    """A bar, numbers below it, and where the dashboard is."""

    def __init__(self, bars: "Bars") -> None:
        self.bars = bars
        self.row = bars.add_task("", total=None, words="", tables="", there="")

    def __call__(self, event: "Event") -> None:
        from pipeline.execute.watching import Finished, Progress, Started, WritingTables

        if isinstance(event, Started):
            there = f"dashboard {event.dashboard}" if event.dashboard else ""
            workers = counted(event.workers, "worker")
            self.bars.update(self.row, description=event.store, there=f"{workers}  {there}")
        elif isinstance(event, Progress):
            words = "  ".join(_words(event))
            self.bars.update(self.row, completed=event.done + event.failed, total=event.tasks, words=words)
        elif isinstance(event, WritingTables):
            self.bars.update(self.row, tables=_tables(event))
        elif isinstance(event, Finished):
            self.bars.update(self.row, tables="")


def _display() -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    class Display(Progress):
        def get_renderables(self) -> Iterator[Any]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                yield from (Text(task.fields[name]) for name in ("words", "tables", "there") if task.fields[name])

    return Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks"),
        console=Console(stderr=True),
    )


def _words(event: "Progress") -> list[str]:
    from pipeline.describe import size

    words = [
        f"{event.images_done} of {counted(event.images, 'image')}",
        f"{event.rate:.1f} megapixels/s",
        f"read {size(event.bytes_read)}",
        f"written {size(event.bytes_written)}",
        f"{event.retries} {'retry' if event.retries == 1 else 'retries'}",
    ]
    failed = [f"{event.failed} failed"] if event.failed else []
    return [*words, *failed, _left(event.seconds_left)]


def _tables(event: "WritingTables") -> str:
    return f"writing tables: {event.images_written} of {counted(event.images, 'image')}"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "time left unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left" if hours else f"{minutes}:{rest:02} left"
