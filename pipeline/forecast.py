"""What a block of work will cost: bytes of memory and seconds, and from these the groups of layers and the tiles.

Layers of one group are made tile by tile, and each tile computes its halo anew; between groups a task keeps the whole
map in memory. More groups compute less twice and hold more. None of this changes a bit of the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import prod

from pipeline.geometry import Region, is_empty, pixels
from pipeline.grid import BlockGrid, MapGrid
from pipeline.kernels import BACKENDS
from pipeline.stack import BoundStack
from pipeline.tiling import TILES, aligned, middle, multiple

PROCESS = 256 * 2**20
"""Bytes of a worker before it has any pixel: Python, NumPy, Numba, Zarr, Dask, ONNX Runtime and their buffers."""

IN_FLIGHT = 2
"""Chunks that zarr decodes or encodes at a time (its ``async.concurrency``) in a worker. More do not pay: on two cores
two workers read 1024² chunks of uint8 at 1290, 1330, 1230 and 1170 Mpx/s with 1, 2, 4 and 10, and write them at 200,
240, 220 and 230."""

CACHE = 2**24
"""Bytes that a core keeps close."""

# Of one core, of the order seen on current machines: they choose between sizes and make a rough forecast. Far away is
# memory that the system has to give anew: arrays of more than 32 MB come and go so.
_NEAR, _FAR = 1.2e10, 1e9
_TILE, _PASS = 2e-4, 5e-5
"""Seconds of Python for a tile, and for each pass over it."""

NEAR_BEST = 1.03
"""How much slower than the best a tile may be forecast, for being smaller."""


@dataclass(frozen=True)
class Work:
    """What making some regions of maps needs."""

    seconds: float
    scratch: int
    """Bytes held while the layers run, beside the input and the maps that are kept."""
    multiplies: int
    """Multiply-adds of all layers."""


def work(
    stack: BoundStack,
    wanted: Mapping[int, Region],
    extents: Sequence[tuple[int, ...]],
    raw: int = 0,
    *,
    stored: bool = False,
) -> Work:
    """Forecast one call of `BoundStack.run`, the conversion of its input included.

    Parameters
    ----------
    raw
        The bytes of a pixel of the input, where a line makes map values of it.
    stored
        Whether a kernel that goes by strips has a room to write the stored numbers of the wanted map to.
    """
    walk = stack.walk(wanted, extents)
    steps = list(stack.steps(wanted))
    strips = bool(raw) and len(steps) == 1 and BACKENDS[stack.choices[0].backend].by_strips(stack.operations[0])
    read = stack.operations[0].inputs * pixels(walk.read) * (raw if strips else 4)
    seconds, kept, multiplies = _TILE + read / _NEAR, 0, 0
    peak = 0 if strips else 5 * read  # by way of float64 at the widest
    for step in steps:
        if is_empty(walk.needed[step[0] + 1]):
            break
        head, last = stack.operations[step[0]], stack.operations[step[-1]]
        backend = BACKENDS[stack.choices[step[0]].backend]
        reach = pixels(tuple(w.reach(i) for w, i in zip(head.windows, walk.needed[step[0] + 1], strict=True)))
        made = pixels(walk.needed[step[-1] + 1])
        before, after = 4 * head.inputs * reach, 4 * len(last.maps) * made
        held = 2 * before + after + backend.scratch(head, reach, pixels(walk.needed[step[0] + 1]))
        if strips:
            after = 0 if stored and not last.average else after
            # Pixels that lie apart, such as those of channels side by side, are copied.
            shape = tuple(map(len, walk.needed[step[-1] + 1]))
            before, held = read, read + after + backend.strip_bytes(stack.operations[: step[-1] + 1], shape)
        peak = max(peak, held + kept)
        kept += after if step[-1] in wanted else 0
        for place in step:
            count = pixels(walk.needed[place + 1])
            multiplies += stack.operations[place].work * count
            seconds += backend.cost(stack.operations[place]) * count
        seconds += _PASS + (before + after) / (_NEAR if held <= CACHE else _FAR)
    return Work(seconds, peak, multiplies)


@dataclass(frozen=True)
class Group:
    """Layers ``first`` … ``end - 1``, made tile by tile; a tile steps over ``tile`` pixels of the group's input."""

    first: int
    end: int
    tile: tuple[int, ...]
    work: Work


@dataclass(frozen=True)
class Costs:
    """What a task of a stack costs, for each way to cut the stack into groups.

    Parameters
    ----------
    stack, extents
        The whole stack and the extents of its input and of each map.
    places, grids
        The layers kept, and their maps.
    room
        Bytes that a tile may hold at the most, as long as any does.
    raw
        The bytes of a pixel of the input, where a line makes map values of it (see `pipeline.pixels.PixelScale.line`).
    lone
        Of each map whether nothing else is done with it than to store it.
    """

    stack: BoundStack
    extents: tuple[tuple[int, ...], ...]
    places: tuple[int, ...]
    grids: tuple[MapGrid, ...]
    room: int
    raw: int
    lone: tuple[bool, ...]

    def outputs(self, first: int, end: int) -> tuple[int, ...]:
        """Return the layers whose maps leave a group: those kept, and the last where another group follows."""
        last = {end - 1} if end < len(self.stack.operations) else set()
        return tuple(sorted(last | {p for p in self.places if first <= p < end}))

    def grid(self, first: int, place: int) -> MapGrid:
        """Return the map of a layer as a grid of pixels over the map before layer ``first``."""
        strides = self.stack.part(first, place + 1).strides(place - first)
        return MapGrid(self.extents[place + 1], (1, 1), strides)

    def group(self, first: int, end: int) -> Group:
        """Return a group with the smallest tile whose forecast time a pixel is near the best of all."""
        found = self._groups.get((first, end))
        if found is None:
            found = self._groups[first, end] = self._choose(first, end)
        return found

    @cached_property
    def _groups(self) -> dict[tuple[int, int], Group]:
        return {}

    def _choose(self, first: int, end: int) -> Group:
        part, extents = self.stack.part(first, end), self.extents[first : end + 1]
        outputs = self.outputs(first, end)
        grids = [self.grid(first, place) for place in outputs]
        steps = [multiple(part, place - first, grid) for place, grid in zip(outputs, grids, strict=True)]
        coarsest = tuple(max(axis) for axis in zip(*steps, strict=True))
        tried: list[tuple[float, Group]] = []
        # Input pixels of the largest write unit; maps within the stack have none.
        units = (0, 0) if first else tuple(max(g.units[axis] * g.strides[axis] for g in self.grids) for axis in (0, 1))
        for tile in TILES:
            step = tuple(map(aligned, tile, coarsest, units))
            wanted = {place - first: middle(grid, step) for place, grid in zip(outputs, grids, strict=True)}
            done = work(part, wanted, extents, 0 if first else self.raw, stored=self._has_rooms(outputs, step))
            if tried and done.scratch > self.room:
                break
            useful = prod(min(s, e) for s, e in zip(step, extents[0], strict=True))
            tried.append((done.seconds / useful, Group(first, end, step, done)))
            if all(s >= e for s, e in zip(step, extents[0], strict=True)):
                break
        best = min(price for price, _ in tried)
        return next(group for price, group in tried if price <= NEAR_BEST * best)

    def _has_rooms(self, outputs: tuple[int, ...], step: tuple[int, ...]) -> bool:
        """Say whether each tile's part of the maps of a first group lies in one write unit, stored and nothing else."""
        kept = {place: (grid, lone) for place, grid, lone in zip(self.places, self.grids, self.lone, strict=True)}
        for place in outputs:
            grid, lone = kept.get(place, (None, False))
            if grid is None or not lone:
                return False
            axes = zip(grid.units, grid.extents, grid.strides, step, strict=True)
            if any(unit < extent and unit * stride % n for unit, extent, stride, n in axes):
                return False
        return True

    def cuts(self) -> list[int]:
        """Return the layers that may begin a group: those that begin a pass and look at more than one pixel."""
        starts = [step[0] for step in self.stack.steps(self.places)]
        return [0, *(s for s in starts if s and max(w.span for w in self.stack.operations[s].windows) > 1)]

    def plan(self, regions: Mapping[int, Region]) -> "TaskCost":
        """Return the cheapest groups for a task that makes ``regions`` of the kept maps."""
        needed = self.stack.walk(regions, self.extents).needed
        count = len(self.stack.operations)
        ends = [*self.cuts(), count]
        best: dict[int, tuple[float, tuple[Group, ...]]] = {0: (0.0, ())}
        for place, end in enumerate(ends[1:], 1):
            if end < count and is_empty(needed[end]):
                continue  # this task makes nothing beyond
            ways = []
            for first in ends[:place]:
                if first in best:
                    group = self.group(first, end)
                    seconds, groups = best[first]
                    between = 8 * len(self.stack.operations[end - 1].maps) * pixels(needed[end]) if end < count else 0
                    cost = seconds + self._tiles(group, needed) * group.work.seconds + between / _FAR
                    ways.append((cost, (*groups, group)))
            best[end] = min(ways, key=lambda way: way[0])
        seconds, groups = best[count]
        multiplies = sum(self._tiles(group, needed) * group.work.multiplies for group in groups)
        return TaskCost(groups, seconds, self._held(groups, needed), multiplies)

    @property
    def _weights(self) -> int:
        """The bytes of what layers bring along, and of what their kernels make of it: all of it stays."""
        parts = zip(self.stack.operations, self.stack.choices, strict=True)
        return sum(sum(a.nbytes for a in o.arrays.values()) + BACKENDS[c.backend].keeps(o) for o, c in parts)

    def _tiles(self, group: Group, needed: Sequence[Region]) -> float:
        """Return how many tiles a group takes, parts of tiles counted as such."""
        place = self.outputs(group.first, group.end)[-1]
        strides = self.grid(group.first, place).strides
        steps = [min(t, e) for t, e in zip(group.tile, self.extents[group.first], strict=True)]
        return prod(max(1.0, len(i) * s / t) for i, s, t in zip(needed[place + 1], strides, steps, strict=True))

    def _held(self, groups: Sequence[Group], needed: Sequence[Region]) -> int:
        """Return the most bytes held beside a task's input and output: maps between groups, a tile's, and weights."""
        sizes = [4 * len(o.maps) * pixels(r) for o, r in zip(self.stack.operations, needed[1:], strict=True)]
        between = [0, *(sizes[group.end - 1] for group in groups[:-1]), 0]
        tiled = max(a + b + g.work.scratch for a, b, g in zip(between, between[1:], groups, strict=False))
        return self._weights + tiled


@dataclass(frozen=True)
class TaskCost:
    """What one task costs with the groups chosen for it; ``held`` bytes are beside its input and output."""

    groups: tuple[Group, ...]
    seconds: float
    held: int
    multiplies: float


@lru_cache(maxsize=256)
def largest_read(
    stack: BoundStack,
    places: tuple[int, ...],
    stored: tuple[bool, ...],
    grid: BlockGrid,
    extents: tuple[tuple[int, ...], ...],
) -> tuple[int, int]:
    """Return the most input pixels, and the most output pixels of all maps that are ``stored``, that one block has."""
    marks = [sorted({*range(min(3, n)), n // 2, *range(max(0, n - 3), n)}) for n in grid.counts]
    read = made = 0
    for index in product(*marks):
        walk = stack.walk(dict(zip(places, grid.seen(index), strict=True)), extents)
        read = max(read, pixels(walk.read))
        made = max(
            made,
            sum(
                pixels(r) * len(stack.operations[p].maps)
                for p, kept, r in zip(places, stored, grid.regions(index), strict=True)
                if kept and not is_empty(r)
            ),
        )
    return read, made
