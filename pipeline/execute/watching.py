"""What is told of a run while it goes on: events, for a terminal, a log, or another program."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.execute.report import Report
from pipeline.execute.task import Done, Outcome


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
class Finished:
    """The run has ended, and this is its report; a run that is interrupted or lost has none."""

    report: Report


Event = Started | Progress | TaskFailed | ImageDone | Finished

_NAMES = {
    Started: "started",
    Progress: "progress",
    TaskFailed: "task failed",
    ImageDone: "image done",
    Finished: "finished",
}


def plain(event: Event) -> dict[str, Any]:
    """Return an event as plain data: its name under ``event``, and all that it tells."""
    told = event.report.to_dict() if isinstance(event, Finished) else asdict(event)
    more = {"megapixels_per_second": round(event.rate, 6)} if isinstance(event, Progress) else {}
    return {"event": _NAMES[type(event)], **told, **more}


class Watch:
    """Counts what a run tells, and passes it on as events, to nobody if nobody listens."""

    def __init__(self, listener: Callable[[Event], None] | None) -> None:
        self._tell = listener or (lambda _: None)
        self._images = self._images_done = self._ended = self._retries = 0
        self._pixels = 0.0
        self._bytes = (0, 0)
        self._clock = time.perf_counter()

    def start(self, store: str, images: int, cluster: str, workers: int, dashboard: str | None) -> None:
        """Tell that work begins; images that could not be planned count, too."""
        self._images, self._clock = images, time.perf_counter()
        self._tell(Started(store, images, cluster, workers, dashboard))

    def take(self, outcome: Outcome, pixels: float) -> None:
        """Count what a task tells, and its share of the pixels of its image."""
        self._ended += 1
        self._pixels += pixels
        self._retries += outcome.retries
        if isinstance(outcome, Done):
            self._bytes = (self._bytes[0] + outcome.bytes_read, self._bytes[1] + outcome.bytes_written)

    def progress(self, tasks: int, done: int, failed: int) -> None:
        """Tell how far the run is."""
        seconds = time.perf_counter() - self._clock
        left = (tasks - done - failed) * seconds / self._ended if self._ended else None
        self._tell(
            Progress(
                tasks,
                done,
                failed,
                self._images,
                self._images_done,
                round(self._pixels),
                *self._bytes,
                self._retries,
                round(seconds, 3),
                None if left is None else round(max(0.0, left), 1),
            )
        )

    def failed(self, image: str, task: str, reason: str) -> None:
        """Tell of a failure."""
        self._tell(TaskFailed(image, task, reason))

    def image_done(self, image: str, failed: int) -> None:
        """Tell that all tasks of an image have ended."""
        self._images_done += 1
        self._tell(ImageDone(image, failed))

    def end(self, report: Report) -> None:
        """Tell that the run has ended."""
        self._tell(Finished(report))
