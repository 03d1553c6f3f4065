"""What blocks read of an image: which chunks they share, how many of these fit in memory, and the bytes of it all."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import overload

from pipeline.geometry import Interval, Region
from pipeline.grid import BlockGrid
from pipeline.stack import BoundStack
from pipeline.storage.cache import Readers
from pipeline.storage.source import Source

SHARE = 4
"""Of the memory that a task leaves, one part in so many may hold chunks for later tasks."""

EDGE = 16
"""Times what it shares with the next that a band may be wide: its edge costs 6 %, and memory stays the same."""

AT_WORK = 2
"""Blocks that a process reads at a time, roughly, or whose turn it is not yet."""

LOOKS = 256
"""Blocks, or bands of them, of an axis that a forecast looks at; of more it takes as many, spread evenly."""

KNOWN = 2**14
"""Blocks of an axis whose chunks are remembered."""


@dataclass(frozen=True)
class Walk(Sequence[int]):
    """The numbers of all blocks of an image whose chunks hold several planes: a block of all of these, then the next.

    >>> list(Walk((2, 1), 2, 6))
    [0, 2, 1, 3, 4, 5]
    """

    slabs: tuple[int, ...]
    """The numbers of planes that lie in the same chunks, along the last outer axis."""
    blocks: int
    """Of a plane."""
    total: int

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...

    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(self.total))]
        if not 0 <= place < self.total:
            raise IndexError(place)
        row, within = divmod(place, self._ends[-1] * self.blocks)
        slab = bisect(self._ends, within // self.blocks)
        first = self._ends[slab] - self.slabs[slab]
        block, plane = divmod(within - first * self.blocks, self.slabs[slab])
        return (row * self._ends[-1] + first + plane) * self.blocks + block

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.slabs))


@dataclass(frozen=True)
class Reading:
    """How the blocks of a grid read an image, for maps kept after the layers at ``places``."""

    source: Source
    stack: BoundStack
    places: Sequence[int]
    extents: Sequence[tuple[int, ...]]
    grid: BlockGrid
    _known: dict[tuple[int, int], Interval] = field(default_factory=dict, init=False, compare=False, repr=False)

    def region(self, index: tuple[int, ...]) -> Region:
        """Return what of the image a block reads, its halo included."""
        wanted = dict(zip(self.places, self.grid.seen(index), strict=True))
        return self.stack.walk(wanted, self.extents).read

    def chunks(self, axis: int, number: int) -> Interval:
        """Return the chunks, counted along one axis, that the blocks at ``number`` of that axis read."""
        known = self._known.get((axis, number))
        if known is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            read = self.region((number, 0) if axis == 0 else (0, number))[axis]
            known = self._known[axis, number] = self._cover(axis, read)
        return known

    def _cover(self, axis: int, read: Interval) -> Interval:
        """Return the chunks of the array along an axis that hold an interval of the image."""
        chunk, offset = self.source.chunks[axis], self.source.offset[axis]
        first, end = read.start + offset, read.stop + offset
        return Interval(first // chunk, -(-end // chunk)) if len(read) else Interval(0, 0)

    def readers(self, index: tuple[int, ...], read: Region) -> Readers:
        """Return how many blocks of the same band read each row and each column of chunks under what a block reads.

        Of maps with different write units a block may make only one, and then reads less than `chunks` says. The
        counts may then be too high: a chunk stays longer than it must.
        """
        height, width = self.grid.counts
        band = self.grid.band or width
        first = index[1] // band * band
        within = (Interval(0, height), Interval(first, min(first + band, width)))
        rows, columns = (self._readers(a, self._cover(a, read[a]), index[a], within[a]) for a in (0, 1))
        return rows, columns

    def _readers(self, axis: int, mine: Interval, number: int, within: Interval) -> list[int]:
        counts = [1] * len(mine)
        for others in (range(number - 1, within.start - 1, -1), range(number + 1, within.stop)):
            for other in others:
                shared = mine.intersect(self.chunks(axis, other))
                if not len(shared):
                    break  # those further away share nothing either
                for chunk in range(shared.start, shared.stop):
                    counts[chunk - mine.start] += 1
        return counts

    def bytes_read(self, cache: int) -> int:
        """Return the decoded bytes of all chunks that one worker reads; what it reads twice counts twice.

        Parameters
        ----------
        cache
            The bytes for chunks that later blocks read, enough for the grid's bands or 0.
        """
        height, width = self.grid.counts
        rows = self._read(0, height if cache else 1)
        columns = self._read(1, (self.grid.band or width) if cache else 1)
        height, width = self.source.chunks
        return self.source.planes * rows * columns * height * width * self.source.decoded_bytes

    def walk(self) -> Walk:
        """Return the blocks in the order in which those of planes that lie in the same chunks follow on each other."""
        extent = self.source.outer[-1].extent
        slabs: list[int] = []
        while sum(slabs) < extent:
            slabs.append(len(self.source.together(sum(slabs))))
        return Walk(tuple(slabs), len(self.grid), self.source.planes * len(self.grid))

    def slab_bytes_read(self) -> int:
        """Return the decoded bytes of all chunks that one worker reads in this order; each block reads its own."""
        slabs = self.source.planes // self.source.outer[-1].extent * len(self.walk().slabs)
        height, width = self.source.chunks
        return slabs * self._read(0, 1) * self._read(1, 1) * height * width * self.source.decoded_bytes

    def _read(self, axis: int, together: int) -> int:
        """Return the chunks along an axis where as many blocks ``together`` read each chunk between them once."""
        count = self.grid.counts[axis]
        bands = -(-count // together)
        looked = _spread(bands)
        total = 0
        for band in looked:
            first, last = band * together, min(count, (band + 1) * together) - 1
            total += len(self.chunks(axis, first).hull(self.chunks(axis, last)))
        return round(total * bands / len(looked))

    def fitted(self, room: int) -> tuple[BlockGrid, int]:
        """Return the grid with the widest useful bands whose shared chunks fit the room, and the bytes of these chunks.

        Parameters
        ----------
        room
            The bytes that a task leaves of a worker's memory: a part of it is taken, all of it only where not even a
            band of one block would fit.
        """
        single = self._shared(1)
        if not single or single > room:
            return replace(self.grid, band=0), 0
        allowed = max(room // SHARE, single)
        width = self.grid.counts[1]
        useful = -(-EDGE * self._axes[1][0] * self.source.chunks[1] // self.grid.step[1])
        low, high = 1, max(1, min(width, useful))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._shared(middle) <= allowed else (low, middle - 1)
        return replace(self.grid, band=0 if low == width else low), self._shared(low)

    def staged(self) -> int:
        """Return the most bytes of chunks that a block reads at a time, to put its region together from."""
        (_, rows), (_, columns) = self._axes
        return rows * columns * self._cell

    def _shared(self, band: int) -> int:
        """Return the most bytes of chunks that wait for later blocks of a band so many blocks wide."""
        (below, tall), (beside, wide) = self._axes
        width = self.grid.counts[1]
        starts = {0, width // 2 // band * band, (width - 1) // band * band}
        across = max(len(self.chunks(1, start).hull(self.chunks(1, min(start + band, width) - 1))) for start in starts)
        # Of the blocks at work there is both what they share with those above and what with those below.
        waiting = below * (across + AT_WORK * wide) + AT_WORK * beside * tall
        everything = 1
        for axis, extent in enumerate(self.source.extents):
            everything *= len(self._cover(axis, Interval(0, extent)))
        return min(waiting, everything) * self._cell

    @cached_property
    def _axes(self) -> tuple[tuple[int, int], ...]:
        """For each axis the most chunks along it that two neighbours both read, and the most that one block does."""
        found = []
        for axis, count in enumerate(self.grid.counts):
            looked = [(self.chunks(axis, n), self.chunks(axis, min(n + 1, count - 1))) for n in _spread(count)]
            shared = max((len(a.intersect(b)) for a, b in looked[:-1]), default=0)
            found.append((shared, max(len(a) for a, _ in looked)))
        return tuple(found)

    @property
    def _cell(self) -> int:
        """The decoded bytes of one chunk's place (y, x) in a plane, over all channels."""
        return self.source.chunks[0] * self.source.chunks[1] * self.source.pixel_bytes


def _spread(count: int) -> list[int]:
    """Return the numbers below ``count``, or of many some, spread evenly, the first and the last among them."""
    if count <= LOOKS:
        return list(range(count))
    return [n * (count - 1) // (LOOKS - 1) for n in range(LOOKS)]
