"""Decoded chunks that several blocks read, kept in memory within a bound, and arrays opened once.

One cache serves one run in one process and goes with it: a later run reads everything anew, so it sees an image that
was changed in between. During a run an image does not change.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, product
from threading import Lock
from typing import Any, Literal

from numpy.typing import NDArray

from pipeline.geometry import Interval, Region, intersect
from pipeline.given import within
from pipeline.storage.handle import Handle, open_alike
from pipeline.storage.place import Place

OPEN = 256
"""Arrays that stay open: more than the kept maps and levels of the images at work."""

Pixels = NDArray[Any]
Part = tuple[Region, Pixels]
"""An area, perhaps larger than was asked for, and its pixels (c, y, x)."""

Planar = tuple[str, int]
"""The path of an array, and the number of a plane of it."""

Key = tuple[Planar, int, int]
"""A plane of an array, and the place of a chunk in it, counted in chunks (y, x)."""

Readers = tuple[Sequence[int], Sequence[int]]
"""How many blocks read each row (y) and each column (x) of chunks that a block does, itself counted."""


@dataclass(frozen=True)
class Claim:
    """Who has which of the chunks that a block reads; those in none of the three are nobody's and stay so."""

    found: Mapping[Key, Pixels]
    """Here already."""
    awaited: Mapping[Key, "Future[Pixels]"]
    """Being read by another thread."""
    mine: Mapping[Key, "Future[Pixels]"]
    """To be read by whoever claimed, and then settled."""

    def has(self, key: Key) -> bool:
        """Say whether a chunk is here or on its way by another's hand."""
        return key in self.found or key in self.awaited


@dataclass
class ChunkCache:
    """A chunk stays until all who read it have; where there is no room, the least recently used make it.

    Parameters
    ----------
    limit
        The most bytes of decoded pixels held.
    """

    limit: int
    _size: int = 0
    _held: OrderedDict[Key, Pixels] = field(default_factory=OrderedDict)
    _coming: dict[Key, "Future[Pixels]"] = field(default_factory=dict)
    _readers: dict[Key, int] = field(default_factory=dict)
    """How many more blocks will want each of these."""
    _arrays: OrderedDict[tuple[Place, str], Handle] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def fit(self, limit: int) -> None:
        """Hold no more than so many bytes from now on: what the plan of the image at work leaves room for."""
        with self._lock:
            self.limit = limit
            while self._size > limit:
                self._drop(next(iter(self._held)))

    def open(self, place: Place, mode: Literal["r", "r+"], staging: str | None = None) -> Handle:
        """Return the Zarr array at a place; the arrays used last stay open."""
        with self._lock:
            array = self._arrays.get((place, mode))
            if array is not None:
                self._arrays.move_to_end((place, mode))
                return array
        array = open_alike(place, mode, staging)
        with self._lock:
            self._arrays[place, mode] = array
            if len(self._arrays) > OPEN:
                self._arrays.popitem(last=False)
        return array

    def claim(self, readers: Mapping[Key, int]) -> Claim:
        """Say which of the chunks are held or on their way, and take on the others that are worth keeping.

        Parameters
        ----------
        readers
            The chunks, and how many blocks in all read each: one that only this block reads is not kept.
        """
        found, awaited, mine = {}, {}, {}
        with self._lock:
            for key, count in readers.items():
                if key in self._held:
                    found[key] = self._held[key]
                    self._held.move_to_end(key)
                elif key in self._coming:
                    awaited[key] = self._coming[key]
                elif count > 1:
                    mine[key] = self._coming[key] = Future()
                    self._readers[key] = count
                else:
                    continue
                self._readers[key] -= 1
                if key in found and not self._readers[key]:
                    self._drop(key)
        return Claim(found, awaited, mine)

    def settle(self, claim: Claim, read: Mapping[Key, Pixels]) -> None:
        """Keep the chunks of a claim that were read, and let those who wait for any of it go on."""
        with self._lock:
            for key in claim.mine:
                del self._coming[key]
                if key in read and self._readers[key] > 0:
                    self._keep(key, read[key])
                else:
                    del self._readers[key]
        for key, future in claim.mine.items():
            if key in read:
                future.set_result(read[key])
            else:
                future.cancel()

    def shared(self, name: Planar, readers: int, get: Callable[[], Pixels]) -> Pixels:
        """Return pixels that so many blocks in all read whole, under a name of their own: held, or else by ``get``."""
        key = (name, 0, 0)
        claim = self.claim({key: readers})
        if key in claim.found:
            return claim.found[key]
        if key in claim.awaited:
            with suppress(CancelledError):  # whoever read it failed; so will this read, unless the fault has passed
                return claim.awaited[key].result()
        read: dict[Key, Pixels] = {}
        try:
            read[key] = pixels = get()
        finally:
            self.settle(claim, read)
        return pixels

    def _keep(self, key: Key, pixels: Pixels) -> None:
        if pixels.nbytes > self.limit:
            del self._readers[key]
            return
        while self._size + pixels.nbytes > self.limit:
            self._drop(next(iter(self._held)))
        self._held[key] = pixels
        self._size += pixels.nbytes

    def _drop(self, key: Key) -> None:
        self._size -= self._held.pop(key).nbytes
        del self._readers[key]


@dataclass(frozen=True)
class Chunked:
    """A plane of an array as a cache sees it, and the array's extents and chunks (y, x) in pixels."""

    plane: Planar
    extents: tuple[int, int]
    chunks: tuple[int, int]

    def cover(self, region: Region) -> Region:
        """Return which chunks hold pixels of a region, counted in chunks.

        >>> Chunked(("", 0), (100, 100), (10, 10)).cover((Interval(9, 21), Interval(5, 5)))
        (Interval(start=0, stop=3), Interval(start=0, stop=0))
        """
        return tuple(
            Interval(i.start // c, -(-i.stop // c)) if len(i) else Interval(0, 0)
            for i, c in zip(region, self.chunks, strict=True)
        )

    def area(self, chunks: Region) -> Region:
        """Return the pixels of a rectangle of chunks."""
        return tuple(
            Interval(i.start * c, min(i.stop * c, e)) for i, c, e in zip(chunks, self.chunks, self.extents, strict=True)
        )

    def parts(
        self,
        region: Region,
        readers: Readers,
        cache: ChunkCache,
        get: Callable[[Region], Pixels],
        *,
        singly: bool = False,
    ) -> list[Part]:
        """Return parts that cover a region: from the cache, and in as few reads as can be by ``get``.

        Chunks that other blocks read, too, are read whole, and kept for them. Where a read of several chunks costs as
        much as one of each, they are read ``singly``: so none is copied to be kept.
        """
        rows, columns = (range(i.start, i.stop) for i in self.cover(region))
        claim = cache.claim(
            {
                (self.plane, row, column): down * across
                for row, down in zip(rows, readers[0], strict=True)
                for column, across in zip(columns, readers[1], strict=True)
            }
        )
        parts = [(self._chunk(key), pixels) for key, pixels in claim.found.items()]
        read: dict[Key, Pixels] = {}
        try:
            wanted = (p for p in product(rows, columns) if not claim.has((self.plane, *p)))
            for rectangle in map(_square, wanted) if singly else _rectangles(wanted):
                keys = [key for key in claim.mine if _holds(rectangle, key)]
                area = self.area(rectangle) if keys else intersect(self.area(rectangle), region)
                pixels = get(area)
                parts.append((area, pixels))
                for key in keys:
                    part = within(pixels, self._chunk(key), area)
                    read[key] = part if singly else part.copy()  # a view would hold all that was read with it
        finally:
            cache.settle(claim, read)
        for key, future in claim.awaited.items():
            try:
                parts.append((self._chunk(key), future.result()))
            except CancelledError:  # whoever read it failed; so will this read, unless the fault has passed
                area = intersect(self._chunk(key), region)
                parts.append((area, get(area)))
        return parts

    def _chunk(self, key: Key) -> Region:
        return self.area(_square(key[1:]))


def _square(place: tuple[int, int]) -> Region:
    """Return the rectangle that is one chunk."""
    return tuple(Interval(n, n + 1) for n in place)


def _holds(chunks: Region, key: Key) -> bool:
    return all(i.start <= n < i.stop for i, n in zip(chunks, key[1:], strict=True))


def _rectangles(places: Iterable[tuple[int, int]]) -> Iterator[Region]:
    """Give rectangles that cover the places, which come row by row: runs of a row, joined with equal ones below.

    >>> [tuple(map(str, r)) for r in _rectangles([(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)])]
    [('[0, 2)', '[0, 2)'), ('[2, 3)', '[1, 2)')]
    """
    open_runs: dict[Interval, Interval] = {}
    for row, group in groupby(places, key=lambda place: place[0]):
        runs = set(_runs(column for _, column in group))
        for run in [r for r, rows in open_runs.items() if r not in runs or rows.stop != row]:
            yield (open_runs.pop(run), run)
        for run in runs:
            open_runs[run] = Interval(open_runs[run].start if run in open_runs else row, row + 1)
    yield from ((rows, run) for run, rows in open_runs.items())


def _runs(numbers: Iterable[int]) -> Iterator[Interval]:
    """Give the runs of consecutive numbers."""
    run: Interval | None = None
    for number in numbers:
        if run is not None and number == run.stop:
            run = Interval(run.start, number + 1)
            continue
        if run is not None:
            yield run
        run = Interval(number, number + 1)
    if run is not None:
        yield run
