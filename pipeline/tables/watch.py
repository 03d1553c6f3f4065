"""What a run looks at a layer's maps for, and what a task finds in its block of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Interval, Region
from pipeline.sections import Detections, Output, Summaries
from pipeline.tables import peaks, sums
from pipeline.tables.peaks import ROW, Rows
from pipeline.tables.sums import Sums


@dataclass(frozen=True)
class Watch:
    """What tables tell of a layer's maps: their peaks, what they sum up to, or both."""

    detections: Detections | None = None
    summaries: Summaries | None = None
    joins: bool = False
    """Whether the layer after it joins whole maps."""

    @property
    def sums(self) -> Summaries | None:
        """What to sum up of each map, if anything."""
        return self.summaries or (Summaries() if self.joins else None)

    @property
    def halo(self) -> tuple[int, ...]:
        """How many pixels (y, x) of the map around its own a task must see; empty for none."""
        return (self.detections.distance,) * 2 if self.detections else ()

    def look(self, maps: NDArray[np.float32], seen: Region, own: Region, unit: tuple[int, int]) -> "Found":
        """Return what (c, y, x) maps over the region ``seen`` tell of the region ``own``, of whole write units."""
        rows = peaks.find(self.detections, maps, seen, own) if self.detections else np.empty(0, ROW)
        wanted = self.sums
        parts = [tuple(sums.sum_up(wanted, values, seen, at) for values in maps) for at in _units(own, unit) if wanted]
        return Found(rows, tuple(parts))

    def memory(self, maps: int, own: Region, unit: tuple[int, int]) -> int:
        """Return the most bytes that a task holds to look at a region of its own: the maps and what is found."""
        around = self.halo or (0, 0)
        held = 4 * maps * (len(own[0]) + 2 * around[0]) * (len(own[1]) + 2 * around[1])
        if self.detections:
            most = peaks.most(self.detections, own)
            told = most if self.detections.top is None else min(most, self.detections.top)
            held += most * (16 + ROW.itemsize) + 3 * maps * told * ROW.itemsize
        if self.sums:
            bins = self.sums.histogram.bins if self.sums.histogram else 0
            held += maps * len(list(_units(own, unit))) * (1024 + 40 * bins)
        return held


@dataclass(frozen=True)
class Found:
    """What a task found: peaks, and for each write unit in reading order what each map sums up to in it."""

    rows: Rows
    parts: tuple[tuple[Sums, ...], ...] = ()

    def pack(self) -> bytes:
        """Return it as bytes."""
        parts = [[part.pack() for part in unit] for unit in self.parts]
        packed: bytes = msgpack.packb([self.rows.tobytes(), parts])
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> "Found":
        """Return what `pack` made bytes of."""
        rows, parts = msgpack.unpackb(packed)
        units: list[list[list[Any]]] = parts
        return cls(np.frombuffer(rows, ROW), tuple(tuple(map(Sums.unpack, unit)) for unit in units))


def _units(own: Region, unit: tuple[int, int]) -> "product[tuple[Interval, ...]]":
    """Give the regions of the write units of a region of whole ones, in reading order."""
    along = (
        [Interval(start, min(start + n, i.stop)) for start in range(i.start, i.stop, n)]
        for i, n in zip(own, unit, strict=True)
    )
    return product(*along)


def watches_of(output: Output, last: str, *, joins: bool) -> dict[str, Watch]:
    """Return by the name of each layer that tables tell of what they tell.

    By default it is the ``last`` local layer, which the next one ``joins`` or there is none.
    """
    found: dict[str, Watch] = {}
    if output.detections:
        found[output.detections.layer or last] = Watch(detections=output.detections)
    for name in (output.summaries.layers or (last,)) if output.summaries else ():
        found[name] = replace(found.get(name, Watch()), summaries=output.summaries)
    if joins:
        found[last] = replace(found.get(last, Watch()), joins=True)
    return found


def wanted_of(watches: Iterable[Watch | None]) -> tuple[Detections | None, Summaries | None]:
    """Return what tables the maps of an image are looked at for."""
    given = [watch for watch in watches if watch]
    detections = (watch.detections for watch in given if watch.detections)
    summaries = (watch.summaries for watch in given if watch.summaries)
    return next(detections, None), next(summaries, None)
