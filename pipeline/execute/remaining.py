"""What earlier runs have left of an image: the blocks of which any write unit has no record.

What a block makes of a map is an interval of its write units along each axis, and every unit is made by one block. So
blocks are asked about all together, on their grid, and each of them and each record takes some bytes.
"""

from array import array
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kept import Kept
from pipeline.planning import ImagePlan
from pipeline.storage.recorded import PART, Boxes, Planned, Recorded, Records, mark
from pipeline.storage.records import Units
from pipeline.storage.windows import Sight, Sights

Grid = NDArray[np.bool_]
"""What is true of which blocks, or of which write units of a map (t, z, y, x)."""

Tasks = NDArray[np.bool_]
"""What is true of which recorded tasks of an image."""


def remaining(image: ImagePlan, found: Records, sights: Sights) -> Sequence[int]:
    """Return those blocks of an image that are left to do, and take what the others saw, and its records.

    Records are of write units, so the blocks may be others than those of the run that made them. What a task saw holds
    for all that it made: a record that a block overlaps which must be made again is dropped as a whole.
    """
    recorded = found.images.pop(image.source.name, Recorded())
    good = recorded.latest()
    if not good.any():
        return image.blocks
    maps = [_Map(image, nth) for nth in range(len(image.made))]
    boxes = [recorded.boxes.get(f"{kept.array.group}/0", Boxes(len(kept.array.axes))) for kept in image.made]
    numbers, places = _walk(image)
    walked = _blocks(image, places)
    while good.any():
        left = walked & np.logical_or.reduce([m.lacking(b, good) for m, b in zip(maps, boxes, strict=True)])
        again = np.logical_or.reduce([m.touching(left, b, good) for m, b in zip(maps, boxes, strict=True)])
        if not again.any():
            for kept, b in zip(image.made, boxes, strict=True):
                _see(kept, b, good, sights)
            return array("q", numbers[left.reshape(-1)[places]].tobytes())
        good &= ~again
    return image.blocks


def _walk(image: ImagePlan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of an image's blocks in the order of the walk, and their places on the grid of all of them."""
    numbers = np.fromiter(image.blocks, np.int64, len(image.blocks))
    places = np.empty_like(numbers)
    for start in range(0, len(numbers), PART):
        plane, nth = np.divmod(numbers[start : start + PART], len(image.grid))
        at, shape = (plane, *image.grid.indices(nth)), (image.source.planes, *image.grid.counts)
        places[start : start + PART] = np.ravel_multi_index(at, shape)
    return numbers, places


def _blocks(image: ImagePlan, places: NDArray[np.int64]) -> Grid:
    """Return the grid of an image's blocks (t, z, y, x), on which those at some places are marked."""
    blocks = np.zeros((*(axis.extent for axis in image.source.outer), *image.grid.counts), bool)
    blocks.reshape(-1)[places] = True
    return blocks


class _Map:
    """The write units of one of an image's maps, and which blocks they are made by; some blocks may make none."""

    def __init__(self, image: ImagePlan, nth: int) -> None:
        self.counts = counts_of(image.made[nth])
        axes = image.made[nth].array.axes
        self.axes = [axes.index(name) for name in (*(outer.name for outer in image.made[nth].array.outer), "y", "x")]
        steps = zip(image.grid.step, image.grid.counts, strict=True)
        made = [np.diff(image.grid.maps[nth].firsts(axis, *of)) for axis, of in enumerate(steps)]
        making = [np.flatnonzero(units) for units in made]
        self.shape = (*self.counts[:-2], *image.grid.counts)
        self.making: tuple[Any, ...] = (..., *np.ix_(*making))
        """Those blocks that make any, on a grid of blocks."""
        self.units = [units[blocks] for units, blocks in zip(made, making, strict=True)]
        """How many units each of them makes, along y and x."""

    def made_by(self, blocks: Grid) -> Grid:
        """Return the units that some blocks make."""
        made: Grid = blocks[self.making].repeat(self.units[0], axis=-2).repeat(self.units[1], axis=-1)
        return made

    def lacking(self, boxes: Boxes, tasks: Tasks) -> Grid:
        """Return the blocks of which tasks have no record of a unit."""
        done = np.zeros(self.counts, bool)
        for rows in boxes.parts(tasks):
            mark(done, rows["first"][:, self.axes], rows["counts"][:, self.axes])
        for axis, units in zip((-2, -1), self.units, strict=True):
            done = np.logical_and.reduceat(done, np.cumsum(units) - units, axis=axis)
        lacking = np.zeros(self.shape, bool)
        lacking[self.making] = ~done
        return lacking

    def touching(self, blocks: Grid, boxes: Boxes, tasks: Tasks) -> Tasks:
        """Return those tasks of which a record is of any unit that some blocks make."""
        marked = blocks[self.making]
        before = np.zeros([n + 1 for n in marked.shape], np.int32)
        before[(slice(1, None),) * marked.ndim] = marked
        for axis in range(marked.ndim):
            before = before.cumsum(axis=axis, dtype=np.int32)
        # By the place of a unit which of these blocks makes it; a plane has blocks of its own.
        owners = [*(np.arange(n) for n in self.counts[:-2]), *(np.arange(len(n)).repeat(n) for n in self.units)]
        touching = np.zeros(len(tasks), bool)
        for rows in boxes.parts(tasks):
            inside, ends = np.ones(len(rows), bool), []
            for owner, axis in zip(owners, self.axes, strict=True):
                first = rows["first"][:, axis]
                last = np.minimum(first + rows["counts"][:, axis], len(owner)) - 1
                inside &= first <= last
                ends.append((owner[np.minimum(first, last)], owner[last] + 1))
            within = np.zeros(len(rows), np.int32)
            for sides in product((0, 1), repeat=len(ends)):
                corner = tuple(end[side] for end, side in zip(ends, sides, strict=True))
                within += (-1) ** sides.count(0) * before[corner]
            touching[rows["task"][inside & (within > 0)]] = True
        return touching


def _see(kept: Kept, boxes: Boxes, tasks: Tasks, sights: Sights) -> None:
    """Take what tasks saw of a map."""
    none = np.empty((len(kept.array.channels), 0), np.float32)
    for rows in boxes.parts(tasks):
        ranges = rows["range"][rows["seen"]]
        if len(ranges):
            sights.add(kept.array, Sight(float(ranges[:, 0].min()), float(ranges[:, 1].max()), none))
    for samples in boxes.samples(tasks):
        sights.add(kept.array, Sight(np.inf, -np.inf, samples))


def see_background(image: ImagePlan, sights: Sights) -> None:
    """Take what there is to see of the blocks that are not made, as they see only the fill value; all others are."""
    if image.seeing is None:
        return
    for kept, values, made in zip(image.made, image.background, due(image), strict=True):
        if kept.stored and not made.all():
            sights.fill(kept.array, values)


def box_of(kept: Kept, units: Units) -> tuple[slice, ...]:
    """Return which write units (t, z, y, x) a record is of, those of all channels."""
    along = dict(zip(kept.array.axes, units.box, strict=True))
    return tuple(along[axis] for axis in (*(outer.name for outer in kept.array.outer), "y", "x"))


def planned_units(image: ImagePlan) -> Planned:
    """Return by the path of each array of a map its grid of write units, and how many of them are to be made.

    Of a map that is not stored only the finest level is: it leaves records, too.
    """
    planned: Planned = {}
    for kept, bitmap in zip(image.made, due(image), strict=True):
        m = kept.array
        for number, level in enumerate(m.levels if kept.stored else m.levels[:1]):
            grid = m.full(len(m.channels), level.counts, [axis.extent for axis in m.outer])
            # Of a level that is made from the one before all is made.
            units = len(m.channels) * int(bitmap.sum()) if level.along else prod(grid)
            planned[f"{m.group}/{number}"] = (grid, units)
    return planned


def due(image: ImagePlan) -> list[Grid]:
    """Return for each map which of its write units (t, z, y, x) tasks make: the others see only the fill value."""
    if image.seeing is None:
        return [np.ones(counts_of(kept), bool) for kept in image.made]
    blocks = _blocks(image, _walk(image)[1])
    return [_Map(image, nth).made_by(blocks) for nth in range(len(image.made))]


def counts_of(kept: Kept) -> tuple[int, ...]:
    """Return how many planes and write units a map has along t, z, y and x."""
    return (*(axis.extent for axis in kept.array.outer), *kept.array.levels[0].counts)
