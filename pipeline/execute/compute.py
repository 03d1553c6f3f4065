"""What a task computes: from raw pixels to stored numbers, group by group, tile by tile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled.loops import survey
from pipeline.forecast import Group
from pipeline.geometry import Interval, Region, intersect, is_empty
from pipeline.given import Given, Held, Maps, Raw, within
from pipeline.grid import MapGrid, tiles
from pipeline.planning import ImagePlan
from pipeline.stack import BoundStack, Walk
from pipeline.storage.maps import MapArray
from pipeline.storage.windows import Sight, sampled


class Stored:
    """The stored numbers of a kept map over a region, and the range of its values.

    ``units`` is (rows, columns, maps, y, x): each write unit lies together, as its codec wants it. What a unit has
    beyond the end of the map is the array's fill value.
    """

    def __init__(self, array: MapArray, region: Region, shown: bool) -> None:
        self.region = region
        self._low, self._high = np.inf, -np.inf
        self._extents = array.extents
        self._shown = shown
        self._samples = [np.empty((len(array.channels), 0), np.float32)]
        self._encoding, self._sizes = array.encoding, array.unit
        extents = _shape(region)
        counts = [-(-n // size) for n, size in zip(extents, array.unit, strict=True)]
        shape = (*counts, len(array.channels), *array.unit)
        self.units: NDArray[Any] = np.empty(shape, array.encoding.dtype)
        if any(n % size for n, size in zip(extents, array.unit, strict=True)):
            self.units[...] = array.fill

    @property
    def sight(self) -> Sight:
        """What was seen of the map's values."""
        return Sight(self._low, self._high, np.concatenate(self._samples, axis=1))

    def room(self, region: Region) -> Maps | None:
        """Return where maps over a region are to lie as they are, all in one write unit; None where they do not."""
        if self._encoding.dtype != "float32" or is_empty(region) or intersect(region, self.region) != region:
            return None
        frame = tuple(Interval(r.start - i.start, r.stop - i.start) for r, i in zip(region, self.region, strict=True))
        place = tuple(i.start // n for i, n in zip(frame, self._sizes, strict=True))
        unit = tuple(Interval(p * n, (p + 1) * n) for p, n in zip(place, self._sizes, strict=True))
        return within(self.units[place], frame, unit) if intersect(frame, unit) == frame else None

    def put(self, maps: Maps, region: Region) -> None:
        """Take what falls into this region, unless it lies here already."""
        if is_empty(common := intersect(region, self.region)):
            return
        values = within(maps, common, region)
        if np.may_share_memory(maps, self.units):
            self._see(*survey(values))
        else:
            self._write(values, common)
        if self._shown:
            rows, columns = sampled(self._extents, common)
            self._samples.append(values[:, rows[:, None], columns].reshape(len(values), -1))

    def _write(self, values: Maps, common: Region) -> None:
        """Write values over a part of this region to the write units that it touches."""
        frame = tuple(Interval(c.start - i.start, c.stop - i.start) for c, i in zip(common, self.region, strict=True))
        touched = (range(i.start // n, -(-i.stop // n)) for i, n in zip(frame, self._sizes, strict=True))
        for place in product(*touched):
            unit = tuple(Interval(p * n, (p + 1) * n) for p, n in zip(place, self._sizes, strict=True))
            part = intersect(frame, unit)
            self._see(*self._encoding.write(within(values, part, frame), within(self.units[place], part, unit)))

    def _see(self, low: float, high: float) -> None:
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))


class Between:
    """A map that a task keeps as it is: between two groups of layers, or to be looked at."""

    def __init__(self, maps: int, region: Region) -> None:
        self.region = region
        self.maps: Maps = np.empty((maps, *_shape(region)), np.float32)

    def room(self, region: Region) -> Maps | None:
        """Return where maps over a region are to lie, if it is a part of this one."""
        return within(self.maps, region, self.region) if intersect(region, self.region) == region else None

    def put(self, maps: Maps, region: Region) -> None:
        """Take what falls into this region, unless it lies here already."""
        common = intersect(region, self.region)
        if not (is_empty(common) or np.may_share_memory(maps, self.maps)):
            within(self.maps, common, self.region)[...] = within(maps, common, region)


@dataclass(frozen=True)
class Made:
    """What a task makes of one map: stored numbers, what tables look at (its halo, too), or both."""

    stored: Stored | None
    seen: Between | None

    @property
    def sinks(self) -> list[Stored | Between]:
        """Those there are, the larger region first."""
        return [sink for sink in (self.seen, self.stored) if sink and not is_empty(sink.region)]


Sinks = Mapping[int, Sequence[Stored | Between]]


def compute(
    plan: ImagePlan,
    raw: Raw,
    walk: Walk,
    regions: Sequence[Region],
    seen: Sequence[Region],
    shown: bool,
) -> list[Made]:
    """Return each map over its region, from the raw pixels that a walk back from the regions ``seen`` reads.

    ``shown`` says whether pixels of this plane tell viewers what to show.
    """
    operations = plan.stack.operations
    kept = [
        Made(
            Stored(k.array, region, shown) if k.stored else None,
            Between(len(k.array.channels), around) if k.watch else None,
        )
        for k, region, around in zip(plan.made, regions, seen, strict=True)
    ]
    fill = plan.source.fill
    if plan.background and fill is not None and raw.only(fill, walk.read) and not any(walk.edges):
        for made, values in zip(kept, plan.background, strict=True):
            for sink in made.sinks:
                shape = (len(values), *_shape(sink.region))
                sink.put(np.broadcast_to(values[:, None, None], shape).copy(), sink.region)
        return kept

    given: Given = raw
    for group in plan.task.groups:
        last, region = group.end - 1, walk.needed[group.end]
        sinks: dict[int, list[Stored | Between]] = {
            k.place: made.sinks
            for k, made in zip(plan.made, kept, strict=True)
            if group.first <= k.place < group.end and made.sinks
        }
        between = None
        if group.end < len(operations) and not is_empty(region):
            between = Between(len(operations[last].maps), region)
            sinks[last] = [between, *sinks.get(last, [])]  # its region holds the other's
        if sinks:
            _run(
                plan.stack.part(group.first, group.end), plan.extents[group.first : group.end + 1], group, given, sinks
            )
        if between is None:
            break
        given = Held(between.maps, between.region)
    return kept


def _run(
    stack: BoundStack,
    extents: Sequence[tuple[int, ...]],
    group: Group,
    given: Given,
    sinks: Sinks,
) -> None:
    """Make the maps that leave a group, tile by tile."""
    places = {place: place - group.first for place in sinks}
    grids = tuple(MapGrid(extents[p + 1], (1, 1), stack.strides(p)) for p in places.values())
    for parts in tiles(grids, tuple(taking[0].region for taking in sinks.values()), group.tile):
        wanted = dict(zip(places.values(), parts, strict=True))
        walk = stack.walk(wanted, extents)
        rooms = {places[p]: taking[0].room(wanted[places[p]]) for p, taking in sinks.items()}
        into = {place: room for place, room in rooms.items() if room is not None}
        made = stack.run(given, walk, wanted, extents, into)
        for place, taking in sinks.items():
            if (inner := places[place]) in made:
                for sink in taking:
                    sink.put(made[inner], wanted[inner])


def _shape(region: Region) -> tuple[int, ...]:
    return tuple(map(len, region)) if not is_empty(region) else (0, 0)
