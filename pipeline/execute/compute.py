"""What a task computes: from raw pixels to stored numbers, group by group, tile by tile."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.forecast import Group
from pipeline.geometry import Interval, Region, intersect, is_empty
from pipeline.given import Given, Held, Maps, Raw, within
from pipeline.grid import MapGrid, tiles
from pipeline.planning import ImagePlan
from pipeline.room import Room
from pipeline.stack import BoundStack, Walk
from pipeline.storage.maps import MapArray
from pipeline.storage.windows import Sight, sampled
from pipeline.tiling import pieces

_NOWHERE = np.empty(0, np.intp)


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

    def room(self, region: Region) -> Room | None:
        """Return where maps over a region are to lie, all in one write unit; None where they do not."""
        if is_empty(region) or intersect(region, self.region) != region:
            return None
        rooms = list(islice(self._rooms(region), 2))
        return rooms[0][1] if len(rooms) == 1 else None

    def put(self, maps: Maps, region: Region) -> None:
        """Take what falls into this region."""
        if is_empty(common := intersect(region, self.region)):
            return
        for part, room in self._rooms(common):
            room.take(within(maps, part, region))
            self.keep(room)

    def keep(self, room: Room) -> None:
        """Note what was seen of the maps that a room of this is full of."""
        self._low, self._high = min(self._low, room.low), max(self._high, room.high)
        self._samples.append(room.pixels.reshape(len(room.pixels), -1))

    def _rooms(self, common: Region) -> Iterator[tuple[Region, Room]]:
        """Give the parts of a part of this region that lie in one write unit each, and their rooms there."""
        counts = [
            range((c.start - i.start) // n, -(-(c.stop - i.start) // n))
            for c, i, n in zip(common, self.region, self._sizes, strict=True)
        ]
        for place in product(*counts):
            unit = tuple(
                Interval(i.start + p * n, i.start + (p + 1) * n)
                for p, i, n in zip(place, self.region, self._sizes, strict=True)
            )
            part = intersect(common, unit)
            looks = sampled(self._extents, part) if self._shown else (_NOWHERE, _NOWHERE)
            yield part, Room(within(self.units[place], part, unit), self._encoding, *looks)


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
    taking = {place - group.first: there for place, there in sinks.items()}
    for wanted in _wanted(stack, extents, group.tile, {place: there[0].region for place, there in taking.items()}):
        walk = stack.walk(wanted, extents)
        rooms = {place: there[0].room(wanted[place]) for place, there in taking.items()}
        into = {place: room for place, room in rooms.items() if room is not None}
        made = stack.run(given, walk, wanted, extents, into)
        for place, there in taking.items():
            room = rooms[place]
            for sink in there:
                if isinstance(sink, Stored) and isinstance(room, Room) and room.is_full:
                    sink.keep(room)
                elif place in made:
                    sink.put(made[place], wanted[place])


def _wanted(
    stack: BoundStack, extents: Sequence[tuple[int, ...]], tile: tuple[int, ...], regions: Mapping[int, Region]
) -> Iterator[dict[int, Region]]:
    """Give what is made at a time of the regions of maps that leave a group, each by its place there."""
    grids = tuple(MapGrid(extents[place + 1], (1, 1), stack.strides(place)) for place in regions)
    one_pass = len(list(stack.steps(regions))) == 1
    for parts in tiles(grids, tuple(regions.values()), tile):
        wanted = dict(zip(regions, parts, strict=True))
        if one_pass:
            ((place, region),) = wanted.items()
            yield from ({place: piece} for piece in pieces(stack, place, region, extents))
        else:
            yield wanted


def _shape(region: Region) -> tuple[int, ...]:
    return tuple(map(len, region)) if not is_empty(region) else (0, 0)
