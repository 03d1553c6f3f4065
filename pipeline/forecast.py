"""What a block of work will cost: bytes of memory, seconds, and from these the sizes of tiles and tasks.

The sizes change how long a run takes and what it holds, never its bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from pipeline.geometry import Interval, Region, is_empty, pixels
from pipeline.grid import BlockGrid, MapGrid
from pipeline.kernels import BACKENDS
from pipeline.stack import BoundStack

PROCESS = 192 * 2**20
"""Bytes of a worker before it has any pixel: Python, NumPy, Zarr, Dask, ONNX Runtime and their buffers."""

IN_FLIGHT = 10
"""Chunks that zarr decodes or encodes at a time (its ``async.concurrency``)."""

CACHE = 2**20
"""Bytes that a core keeps close."""

# Rates of one core, of the order seen on current machines: they choose between sizes and make a rough forecast.
_FLOPS = {"onnxruntime": 6e10, "numpy": 1.5e9}
_NEAR, _FAR = 8e9, 3e9
_CALL = 1e-4

NEAR_BEST = 1.15
"""How much slower than the best a tile may be forecast, for being smaller."""


@dataclass(frozen=True)
class Work:
    """What making some regions of maps needs."""

    seconds: float
    scratch: int
    """Bytes held while the layers run, beside the input pixels and the stored output."""
    multiplies: int
    """Multiply-adds of all layers."""


def work(
    stack: BoundStack,
    backends: Sequence[str],
    wanted: Mapping[int, Region],
    extents: Sequence[tuple[int, ...]],
) -> Work:
    """Forecast one call of `BoundStack.run`, the conversion of its input included."""
    walk = stack.walk(wanted, extents)
    read = pixels(walk.read) * stack.operations[0].inputs * 4
    seconds, peak, kept, multiplies = read / _NEAR, 5 * read, 0, 0  # by way of float64 at the widest
    for place, (operation, name) in enumerate(zip(stack.operations, backends, strict=True)):
        made = walk.needed[place + 1]
        if is_empty(made):
            break
        reach = tuple(w.reach(i) for w, i in zip(operation.windows, made, strict=True))
        before, after = 4 * operation.inputs * pixels(reach), 4 * len(operation.maps) * pixels(made)
        beside = BACKENDS[name].scratch(operation, pixels(reach), pixels(made))
        held = 2 * before + after + beside
        peak = max(peak, held + kept)
        kept += after if place in wanted else 0
        multiplies += operation.work * pixels(made)
        seconds += _CALL + 2 * operation.work * pixels(made) / _FLOPS.get(name, _FLOPS["numpy"])
        seconds += (before + after) / (_NEAR if held <= CACHE else _FAR)
    return Work(seconds, peak, multiplies)


def _centre(grid: MapGrid, step: tuple[int, ...]) -> Region:
    """Return a block of a map from its middle, as large as one of ``step`` input pixels can be."""
    sizes = [min(e, ceil(s / t)) for e, s, t in zip(grid.extents, step, grid.strides, strict=True)]
    return tuple(Interval((e - n) // 2, (e - n) // 2 + n) for e, n in zip(grid.extents, sizes, strict=True))


def choose_tile(
    stack: BoundStack,
    backends: Sequence[str],
    places: Sequence[int],
    grids: Sequence[MapGrid],
    extents: Sequence[tuple[int, ...]],
    room: int,
) -> tuple[tuple[int, ...], Work]:
    """Return the tile step in input pixels: the smallest whose forecast time a pixel is near the best of all.

    A smaller tile computes its halo more often and holds less. What does not fit the room is not considered, as long as
    anything does.
    """
    coarsest = tuple(max(axis) for axis in zip(*(g.strides for g in grids), strict=True))
    tried: list[tuple[float, tuple[int, ...], Work]] = []
    for edge in (64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048):
        step = tuple(-(-edge // s) * s for s in coarsest)
        wanted = {place: _centre(grid, step) for place, grid in zip(places, grids, strict=True)}
        done = work(stack, backends, wanted, extents)
        useful = prod(min(s, e) for s, e in zip(step, extents[0], strict=True))
        if tried and done.scratch > room:
            break
        tried.append((done.seconds / useful, step, done))
        if all(s >= e for s, e in zip(step, extents[0], strict=True)):
            break
    best = min(price for price, _, _ in tried)
    return next((step, done) for price, step, done in tried if price <= NEAR_BEST * best)


def largest_read(
    stack: BoundStack,
    places: Sequence[int],
    grid: BlockGrid,
    extents: Sequence[tuple[int, ...]],
) -> tuple[int, int]:
    """Return the most input pixels and the most output pixels of all maps that one block has."""
    marks = [sorted({*range(min(3, n)), n // 2, *range(max(0, n - 3), n)}) for n in grid.counts]
    read = made = 0
    for index in product(*marks):
        regions = grid.regions(index)
        walk = stack.walk(dict(zip(places, regions, strict=True)), extents)
        read = max(read, pixels(walk.read))
        made = max(
            made,
            sum(
                pixels(r) * len(stack.operations[p].maps)
                for p, r in zip(places, regions, strict=True)
                if not is_empty(r)
            ),
        )
    return read, made
