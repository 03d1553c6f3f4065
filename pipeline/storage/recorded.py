"""What the records of a store say of each image, packed, so that a million of them stay cheap.

Of a record is kept which write units it is of, which task made it, and what was seen. The sizes and the checksums of
the units stay where they are: whoever asks for these reads the segments (`records.segments_of`).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.storage.intact import Intact
from pipeline.storage.machine import boot
from pipeline.storage.place import Place
from pipeline.storage.records import Units, outline, segments_of

PART = 2**13
"""Records, or blocks, that are looked at together, so that what is made of them meanwhile is small."""

Rows = NDArray[np.void]

Planned = dict[str, tuple[tuple[int, ...], int]]
"""By the paths of an image's arrays their grids of write units, and how many units of each are to be made."""


@lru_cache
def _row(axes: int) -> tuple[np.dtype[np.void], struct.Struct]:
    """Return how a box of an array of so many axes is packed."""
    places = ("<i4", (axes,))
    fields = [("task", "<u4"), ("leads", "?"), ("seen", "?"), ("range", "<f8", (2,))]
    return np.dtype([*fields, ("first", *places), ("counts", *places)]), struct.Struct(f"<I??dd{2 * axes}i")


class Boxes:
    """The boxes of write units of one array that are recorded, in the order in which they were read.

    Parameters
    ----------
    axes
        How many the array has.
    """

    __slots__ = ("_row", "_rows", "_samples")

    def __init__(self, axes: int) -> None:
        self._row, self._rows = _row(axes), bytearray()
        self._samples: dict[int, NDArray[np.float32]] = {}

    def add(
        self, task: int, first: Sequence[int], counts: Sequence[int], seen: Sequence[Any] | None, *, leads: bool
    ) -> None:
        """Take a box of a task, by its number, and as they were packed its range and its samples (c, n).

        ``leads`` says whether it is the first of its task's.
        """
        _, packed = self._row
        low, high, channels, samples = seen or (0.0, 0.0, 0, b"")
        if samples:
            number = len(self._rows) // packed.size
            self._samples[number] = np.frombuffer(samples, "<f4").astype(np.float32).reshape(channels, -1)
        self._rows += packed.pack(task, leads, bool(seen), low, high, *first, *counts)

    @property
    def rows(self) -> Rows:
        """All boxes: ``task``, whether it ``leads``, whether a ``range`` was ``seen``, ``first`` and ``counts``."""
        return np.frombuffer(self._rows, self._row[0])

    def parts(self, tasks: NDArray[np.bool_] | None = None) -> Iterator[Rows]:
        """Give the rows, some at a time: those of the tasks of which that is true, or all."""
        rows = self.rows
        for start in range(0, len(rows), PART):
            part = rows[start : start + PART]
            yield part if tasks is None else part[tasks[part["task"]]]

    def samples(self, tasks: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
        """Give the pixels (c, n) that tasks have looked at, of the few boxes in which there are any."""
        of = self.rows["task"]
        return (samples for number, samples in self._samples.items() if tasks[of[number]])


@dataclass(slots=True)
class Recorded:
    """What is recorded of one image: by the paths of arrays their boxes, and how many tasks these are of."""

    boxes: dict[str, Boxes] = field(default_factory=dict)
    tasks: int = 0

    def add(self, task: Sequence[Sequence[Any]]) -> None:
        """Take the records of a task, as they were packed."""
        for nth, packed in enumerate(task):
            array, first, counts, seen, _ = outline(packed)
            boxes = self.boxes.get(array)
            if boxes is None:
                boxes = self.boxes[array] = Boxes(len(first))
            boxes.add(self.tasks, first, counts, seen, leads=not nth)
        self.tasks += 1

    def latest(self) -> NDArray[np.bool_]:
        """Say of each task whether no later one has made the same: whose first record is of the same box."""
        latest = np.ones(self.tasks, bool)
        for boxes in self.boxes.values():
            leads = np.flatnonzero(boxes.rows["leads"])
            if not len(leads):
                continue
            keys = [_numbered(boxes.rows[name][leads]) for name in ("first", "counts")]
            order = np.lexsort(keys)  # of those that are alike the last one comes last
            alike = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
            latest[boxes.rows["task"][leads[order[:-1][alike]]]] = False
        return latest


def mark(grid: NDArray[np.bool_], first: NDArray[np.int32], counts: NDArray[np.int32]) -> None:
    """Mark on a grid boxes from ``first`` on, of ``counts`` places, both (n, axes), as far as they are inside."""
    if not len(first):
        return
    extents = np.array(grid.shape, np.int32)
    first = np.minimum(first, extents)
    counts = np.minimum(counts, extents - first)
    sizes = _numbered(counts)
    order = np.argsort(sizes, kind="stable")
    # Nearly all boxes have one of a few sizes: those of a size are marked together, a place of each at a time.
    for alike in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1):
        size, corners = counts[alike[0]].tolist(), first[alike]
        if len(alike) < prod(size):
            for corner in corners.tolist():
                grid[tuple(slice(at, at + n) for at, n in zip(corner, size, strict=True))] = True
        else:
            for offset in np.ndindex(*size):
                grid[tuple((corners + np.array(offset, np.int32)).T)] = True


def _numbered(places: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return a number for each of some places (n, axes), the same for the same ones alone."""
    numbers: NDArray[np.int64] = np.ravel_multi_index(tuple(places.T), tuple(places.max(axis=0) + 1))
    return numbers


@dataclass
class Records:
    """All valid records of a store.

    Parameters
    ----------
    images
        By their names what is recorded of the images.
    events
        Which images the runs began, each with its path, its metadata's digest and its write units.
    finished, kinds
        By their names the images of which there is nothing left to do, and the kinds of images.
    """

    images: dict[str, Recorded] = field(default_factory=dict)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    finished: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, task: Sequence[Sequence[Any]]) -> None:
        """Take the records of a task, of one image, as they were packed."""
        name = task[0][0].partition("/")[0]
        recorded = self.images.get(name)
        if recorded is None:
            recorded = self.images[name] = Recorded()
        recorded.add(task)

    def note(self, event: Mapping[str, Any], *, doubtful: bool) -> None:
        """Take what a run has noted; an image is not finished where that is in doubt."""
        if "image" in event:
            self.events.append(event)
        elif "plan" in event:
            self.kinds[event["kind"]] = event["plan"]
        elif not doubtful:
            self.finished[event["finished"]] = event

    def planned(self) -> dict[str, Planned]:
        """Return of each image that was begun what is to be made of it; stores of old name no levels of a pyramid."""
        return {
            event["image"]: {path: (tuple(counts), units) for path, (counts, units) in event["units"].items()}
            for event in self.events
        }

    def made(self, path: str, counts: tuple[int, ...]) -> int:
        """Return how many write units of an array are recorded, of so many along each axis."""
        boxes = self.images.get(path.partition("/")[0], Recorded()).boxes.get(path)
        made = np.zeros(counts, bool)
        for rows in boxes.parts() if boxes else ():
            mark(made, rows["first"], rows["counts"])
        return int(made.sum())

    def has_all(self, planned: Planned) -> bool:
        """Say whether all that is to be made of an image is recorded."""
        return all(self.made(path, counts) >= units for path, (counts, units) in planned.items())


SINCE = "since"
"""Where in what a store says of its run the number of the lock stands with which it was begun."""


def begun_with(record: Mapping[str, Any]) -> int:
    """Return the number of the lock with which a store was begun; stores of old do not say it."""
    since = record.get(SINCE)
    return since if isinstance(since, int) else 0


NONE: Final = "none"
PAST: Final = "past"
ALL: Final = "all"
"""Of which records it is in doubt whether the data are what they say: those of a boot that is over, or all."""

Doubt = Literal["none", "past", "all"]


def read(store: Place, plan: str, since: int = 0, *, doubt: Doubt = PAST) -> Records:
    """Return the records of a store that hold for a plan; what is torn or of another plan counts for nothing.

    Those that are in doubt are left out where the data are not what they say; and no image is finished of which records
    are gone, or what says what it should have of them.
    """
    found, intact = Records(), Intact(store)
    for _, header, frames, _ in segments_of(store, plan, since):
        over = doubt == PAST and _is_over(header.get("boot"))
        for frame in frames:
            if isinstance(frame, dict):
                found.note(frame, doubtful=over)
            elif frame and not (
                (over or doubt == ALL) and any(not intact.holds(Units.unpack(packed)) for packed in frame)
            ):
                found.add(frame)
    planned = found.planned()
    for name, event in [*found.finished.items()]:
        if not (name in planned and event["kind"] in found.kinds and found.has_all(planned[name])):
            del found.finished[name]
    return found


def _is_over(named: Any) -> bool:
    """Say whether a machine's boot is one that this machine knows to be over."""
    host, mine = boot()
    return isinstance(named, list) and len(named) == 2 and named[0] == host and named[1] != mine
