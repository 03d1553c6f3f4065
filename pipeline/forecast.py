"""What a block of work will cost: bytes of memory and seconds, and from these the groups of layers and the tiles.

Layers of one group are made tile by tile, and each tile computes its halo anew; between groups a task keeps the whole
map in memory. More groups compute less twice and hold more. None of this changes a bit of the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import ceil, prod

from pipeline.geometry import Interval, Region, is_empty, pixels
from pipeline.grid import BlockGrid, MapGrid
from pipeline.kernels import BACKENDS
from pipeline.stack import BoundStack

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

TILES = sorted(
    ((h, h * wide) for h in (32, 64, 128, 256, 512, 1024, 2048) for wide in (1, 4, 16) if h * wide <= 2048), key=prod
)
"""Tiles that are tried, in input pixels (y, x), the small ones first; compiled loops like long rows."""

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


def work(stack: BoundStack, wanted: Mapping[int, Region], extents: Sequence[tuple[int, ...]]) -> Work:
    """Forecast one call of `BoundStack.run`, the conversion of its input included."""
    walk = stack.walk(wanted, extents)
    read = 4 * stack.operations[0].inputs * pixels(walk.read)
    seconds, peak, kept, multiplies = _TILE + read / _NEAR, 5 * read, 0, 0  # by way of float64 at the widest
    for step in stack.steps(wanted):
        if is_empty(walk.needed[step[0] + 1]):
            break
        head, last = stack.operations[step[0]], stack.operations[step[-1]]
        backend = BACKENDS[stack.choices[step[0]].backend]
        reach = pixels(tuple(w.reach(i) for w, i in zip(head.windows, walk.needed[step[0] + 1], strict=True)))
        made = pixels(walk.needed[step[-1] + 1])
        before, after = 4 * head.inputs * reach, 4 * len(last.maps) * made
        held = 2 * before + after + backend.scratch(head, reach, pixels(walk.needed[step[0] + 1]))
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
    """

    stack: BoundStack
    extents: tuple[tuple[int, ...], ...]
    places: tuple[int, ...]
    grids: tuple[MapGrid, ...]
    room: int

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
        steps = [_multiple(part, place - first, grid) for place, grid in zip(outputs, grids, strict=True)]
        coarsest = tuple(max(axis) for axis in zip(*steps, strict=True))
        tried: list[tuple[float, Group]] = []
        for tile in TILES:
            step = tuple(ceil(edge / s) * s for edge, s in zip(tile, coarsest, strict=True))
            wanted = {place - first: middle(grid, step) for place, grid in zip(outputs, grids, strict=True)}
            done = work(part, wanted, extents)
            if tried and done.scratch > self.room:
                break
            useful = prod(min(s, e) for s, e in zip(step, extents[0], strict=True))
            tried.append((done.seconds / useful, Group(first, end, step, done)))
            if all(s >= e for s, e in zip(step, extents[0], strict=True)):
                break
        best = min(price for price, _ in tried)
        return next(group for price, group in tried if price <= NEAR_BEST * best)

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


def _multiple(stack: BoundStack, place: int, grid: MapGrid) -> tuple[int, ...]:
    """Return the input pixels that the edge of a tile is a multiple of: of the map's stride, and of kernels' cells."""
    steps = list(grid.strides)
    for layer in range(place + 1):
        cell = BACKENDS[stack.choices[layer].backend].cell(stack.operations[layer])
        steps = [max(step, c * s) for step, c, s in zip(steps, cell, stack.strides(layer), strict=True)]
    return tuple(steps)


def middle(grid: MapGrid, step: Sequence[int]) -> Region:
    """Return a block from a map's middle, as large as one of ``step`` input pixels, on their grid."""
    sizes = [min(e, ceil(s / t)) for e, s, t in zip(grid.extents, step, grid.strides, strict=True)]
    starts = [(e - n) // 2 // n * n for e, n in zip(grid.extents, sizes, strict=True)]
    return tuple(Interval(start, start + n) for start, n in zip(starts, sizes, strict=True))


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
