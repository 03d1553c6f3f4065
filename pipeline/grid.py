"""Write units and tasks as regions: which pixels of which maps one block of work makes.

A block owns, of every kept map, the whole write units whose first pixel falls into the block's square of the input.
So several kept maps of different strides are made in one pass, each unit by exactly one task. The tiles inside a
task are the same thing with units of one pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Interval, Region, intersect, is_empty


@dataclass(frozen=True, slots=True)
class MapGrid:
    """One kept map, per axis: its extent, its write unit, and how many input pixels one of its pixels steps over.

    ``halo`` is how many pixels of the map around its own a block makes besides, to look at; none where it is empty.
    """

    extents: tuple[int, ...]
    units: tuple[int, ...]
    strides: tuple[int, ...]
    halo: tuple[int, ...] = ()

    def owned(self, index: tuple[int, ...], step: tuple[int, ...]) -> Region:
        """Return the pixels of the map that block ``index`` of a grid of ``step`` input pixels makes; may be none.

        >>> MapGrid((10,), (4,), (2,)).owned((0,), (8,)), MapGrid((10,), (4,), (2,)).owned((2,), (8,))
        ((Interval(start=0, stop=4),), (Interval(start=8, stop=10),))
        """
        intervals = []
        for i, s, extent, unit, stride in zip(index, step, self.extents, self.units, self.strides, strict=True):
            first, end = -(-i * s // (unit * stride)), -(-(i + 1) * s // (unit * stride))
            intervals.append(Interval(first * unit, min(end * unit, extent)))
        return tuple(intervals)

    def firsts(self, axis: int, step: int, count: int) -> NDArray[np.int64]:
        """Return along an axis the first write unit of each of so many blocks in a row, and the end of the last one's.

        >>> MapGrid((10,), (4,), (2,)).firsts(0, 8, 3).tolist()
        [0, 1, 2, 3]
        """
        ends = -(-np.arange(count + 1) * step // (self.units[axis] * self.strides[axis]))
        return np.minimum(ends, -(-self.extents[axis] // self.units[axis]))

    def seen(self, index: tuple[int, ...], step: tuple[int, ...]) -> Region:
        """Return the pixels that a block makes, its own and the halo's, cut at the map's edge; none if it has none.

        >>> MapGrid((10,), (4,), (2,), (3,)).seen((1,), (8,)), MapGrid((10,), (4,), (2,), (3,)).seen((0,), (8,))
        ((Interval(start=1, stop=10),), (Interval(start=0, stop=7),))
        """
        own = self.owned(index, step)
        if not self.halo or is_empty(own):
            return own
        return tuple(
            Interval(max(0, i.start - h), min(i.stop + h, e))
            for i, h, e in zip(own, self.halo, self.extents, strict=True)
        )

    def block_of(self, position: tuple[int, ...], step: tuple[int, ...]) -> tuple[int, ...]:
        """Return the index of the block that owns a pixel of the map."""
        return tuple(
            p // unit * unit * stride // s
            for p, s, unit, stride in zip(position, step, self.units, self.strides, strict=True)
        )


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """All blocks of a run over one image; a block is named by its index, one number per axis.

    They are walked in bands: the rows of a band of ``band`` columns in reading order, then the next band; 0 makes one
    band of the whole width. What the rows of a narrow band share fits in memory where that of whole rows does not.
    """

    maps: tuple[MapGrid, ...]
    step: tuple[int, ...]
    band: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of blocks per axis."""
        last = [m.block_of(tuple(e - 1 for e in m.extents), self.step) for m in self.maps]
        return tuple(max(axis) + 1 for axis in zip(*last, strict=True))

    def __len__(self) -> int:
        return prod(self.counts)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Give the indices in the order of the walk, one at a time."""
        return (self.index(number) for number in range(len(self)))

    def index(self, number: int) -> tuple[int, ...]:
        """Return the index of the block at place ``number`` of the walk.

        >>> [BlockGrid((MapGrid((2, 3), (1, 1), (1, 1)),), (1, 1), band=2).index(n) for n in range(6)]
        [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)]
        """
        return self._index(number, min)

    def indices(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return the indices of many blocks, an array for each axis."""
        return self._index(numbers, np.minimum)

    def _index(self, number: Any, least: Any) -> tuple[Any, ...]:
        *counts, width = self.counts
        band = self.band or width
        nth, number = divmod(number, prod(counts) * band)
        row, column = divmod(number, least(band, width - nth * band))
        parts = [nth * band + column]
        for count in reversed(counts):
            row, part = divmod(row, count)
            parts.append(part)
        return tuple(reversed(parts))

    def number(self, index: tuple[int, ...]) -> int:
        """Return the place of a block in the walk: the inverse of `index`."""
        *counts, width = self.counts
        band = self.band or width
        nth, column = divmod(index[-1], band)
        row = 0
        for count, part in zip(counts, index, strict=False):
            row = row * count + part
        return nth * band * prod(counts) + row * min(band, width - nth * band) + column

    def regions(self, index: tuple[int, ...]) -> tuple[Region, ...]:
        """Return the region of each kept map that a block makes; one of them may be empty."""
        return tuple(m.owned(index, self.step) for m in self.maps)

    def seen(self, index: tuple[int, ...]) -> tuple[Region, ...]:
        """Return the region of each kept map that a block makes to look at: `regions` and their halos."""
        return tuple(m.seen(index, self.step) for m in self.maps)


def tiles(
    maps: tuple[MapGrid, ...], regions: tuple[Region, ...], step: tuple[int, ...]
) -> Iterator[tuple[Region, ...]]:
    """Cut a task's regions into tiles of ``step`` input pixels on the image's global grid.

    >>> grid = MapGrid((10,), (10,), (1,))
    >>> [r[0][0] for r in tiles((grid,), ((Interval(3, 10),),), (4,))]
    [Interval(start=3, stop=4), Interval(start=4, stop=8), Interval(start=8, stop=10)]
    """
    finest = tuple(MapGrid(m.extents, (1,) * len(m.extents), m.strides) for m in maps)
    made = [(m, r) for m, r in zip(finest, regions, strict=True) if not is_empty(r)]
    if not made:
        return
    first = [m.block_of(tuple(i.start for i in r), step) for m, r in made]
    last = [m.block_of(tuple(i.stop - 1 for i in r), step) for m, r in made]
    low = [min(axis) for axis in zip(*first, strict=True)]
    shape = [max(axis) + 1 - lo for axis, lo in zip(zip(*last, strict=True), low, strict=True)]
    for number in range(prod(shape)):
        index, rest = [], number
        for lo, count in zip(reversed(low), reversed(shape), strict=True):
            rest, part = divmod(rest, count)
            index.append(lo + part)
        place = tuple(reversed(index))
        tile = tuple(intersect(m.owned(place, step), r) for m, r in zip(finest, regions, strict=True))
        if not all(is_empty(r) for r in tile):
            yield tile
