"""What earlier runs have left of an image: the blocks of which any write unit has no record."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.kept import Kept
from pipeline.planning import ImagePlan
from pipeline.storage.records import Records, Units
from pipeline.storage.source import place_of
from pipeline.storage.windows import Sights

Task = list[Units]


def remaining(image: ImagePlan, found: Records, sights: Sights) -> Sequence[int]:
    """Return those blocks of an image that are left to do, and take what the others saw, and its records.

    Records are of write units, so the blocks may be others than those of the run that made them. What a task saw holds
    for all that it made: a record that a block overlaps which must be made again is dropped as a whole.
    """
    tasks = list(
        {
            (task[0].array, task[0].first, task[0].counts): task for task in found.tasks.pop(image.source.name, [])
        }.values()
    )
    while tasks:
        done = [_bitmap(kept, tasks) for kept in image.made]
        left = [block for block in image.blocks if not _covers(image, done, block)]
        again = [np.zeros_like(bitmap) for bitmap in done]
        for block in left:
            for bitmap, box in zip(again, _boxes(image, block), strict=True):
                bitmap[box] = True
        marked = {f"{kept.array.group}/0": (kept, bitmap) for kept, bitmap in zip(image.made, again, strict=True)}
        good = [task for task in tasks if not any(_touches(u, *marked[u.array]) for u in task if u.array in marked)]
        if len(good) == len(tasks):
            arrays = {f"{kept.array.group}/0": kept.array for kept in image.made}
            for units in (u for task in tasks for u in task):
                if units.sight and units.array in arrays:
                    sights.add(arrays[units.array], units.sight)
            return left
        tasks = good
    return image.blocks


Box = tuple[int | slice, ...]
"""Where write units are on the grid of a map's planes and units (t, z, y, x)."""


def _boxes(image: ImagePlan, block: int) -> Iterator[Box]:
    """Give for each kept map which write units a block makes."""
    plane, index = image.at(block)
    for kept, region in zip(image.made, image.grid.regions(index), strict=True):
        units = [slice(i.start // n, -(-i.stop // n)) for i, n in zip(region, kept.array.unit, strict=True)]
        yield (*place_of(plane, kept.array.outer), *units)


def box_of(kept: Kept, units: Units) -> Box:
    """Return which write units a record is of, those of all channels."""
    along = dict(zip(kept.array.axes, units.box, strict=True))
    return tuple(along[axis] for axis in (*(outer.name for outer in kept.array.outer), "y", "x"))


def _touches(units: Units, kept: Kept, bitmap: NDArray[np.bool_]) -> bool:
    return bool(bitmap[box_of(kept, units)].any())


def _bitmap(kept: Kept, tasks: Sequence[Task]) -> NDArray[np.bool_]:
    """Return which write units (t, z, y, x) of a map are recorded."""
    made = np.zeros(counts_of(kept), bool)
    for units in (u for task in tasks for u in task if u.array == f"{kept.array.group}/0"):
        made[box_of(kept, units)] = True
    return made


def _covers(image: ImagePlan, done: Sequence[NDArray[np.bool_]], block: int) -> bool:
    return all(bool(bitmap[box].all()) for bitmap, box in zip(done, _boxes(image, block), strict=True))


def planned_units(image: ImagePlan) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return by the path of each kept map's array its grid of write units, and how many of them are to be made."""
    planned: dict[str, tuple[tuple[int, ...], int]] = {}
    for kept, bitmap in zip(image.made, due(image), strict=True):
        m = kept.array
        grid = m.full(len(m.channels), m.levels[0].counts, [axis.extent for axis in m.outer])
        planned[f"{m.group}/0"] = (grid, len(m.channels) * int(bitmap.sum()))
    return planned


def due(image: ImagePlan) -> list[NDArray[np.bool_]]:
    """Return for each map which of its write units (t, z, y, x) tasks make: the others see only the fill value."""
    marked = [np.full(counts_of(kept), image.seeing is None) for kept in image.made]
    for block in image.blocks if image.seeing is not None else ():
        for bitmap, box in zip(marked, _boxes(image, block), strict=True):
            bitmap[box] = True
    return marked


def counts_of(kept: Kept) -> tuple[int, ...]:
    """Return how many planes and write units a map has along t, z, y and x."""
    return (*(axis.extent for axis in kept.array.outer), *kept.array.levels[0].counts)
