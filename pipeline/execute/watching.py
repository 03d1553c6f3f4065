"""What is told of a run while it goes on: events, for a terminal, a log, or another program."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.execute.report import Report


@dataclass(frozen=True)
class Started:
    """The cluster is there and the work begins."""

    store: str
    images: int
    cluster: str
    workers: int
    dashboard: str | None
    """The address of Dask's pages on this run, where there are any."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, after each task and each image that cannot be run."""

    tasks: int
    """Of all images; with many images, those of which nobody has looked at yet are estimated."""
    done: int
    """Of the tasks, those an earlier run has done among them."""
    failed: int
    images: int
    images_done: int
    """Images that ended, well or with failures."""
    pixels: int
    """Of input, in this run."""
    bytes_read: int
    """Decoded bytes of input, in this run."""
    bytes_written: int
    """Bytes of output before compression, in this run."""
    retries: int
    """Times that a task was run again, since it had raised an error."""
    seconds: float
    """Since the work began."""
    seconds_left: float | None
    """At the pace until now; None before there is one."""

    @property
    def rate(self) -> float:
        """Megapixels of input a second."""
        return self.pixels / 1e6 / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class TaskFailed:
    """A task failed for good, or an image as a whole."""

    image: str
    task: str
    reason: str


@dataclass(frozen=True)
class ImageDone:
    """All tasks of an image have ended."""

    image: str
    failed: int
    """Of its tasks."""


@dataclass(frozen=True)
class WritingTables:
    """How far the tables are: all tasks have ended, and what they found is written down, image by image."""

    images: int
    images_written: int


@dataclass(frozen=True)
class Finished:
    """The run has ended, and this is its report; a run that is interrupted or lost has none."""

    report: Report


Event = Started | Progress | TaskFailed | ImageDone | WritingTables | Finished

_NAMES = {
    Started: "started",
    Progress: "progress",
    TaskFailed: "task failed",
    ImageDone: "image done",
    WritingTables: "writing tables",
    Finished: "finished",
}


def plain(event: Event) -> dict[str, Any]:
    """Return an event as plain data: its name under ``event``, and all that it tells."""
    told = event.report.to_dict() if isinstance(event, Finished) else asdict(event)
    more = {"megapixels_per_second": round(event.rate, 6)} if isinstance(event, Progress) else {}
    return {"event": _NAMES[type(event)], **told, **more}
