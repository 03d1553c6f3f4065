"""Which tiles a task may be made by: sizes that are tried, in step with kernels' cells and with write units."""

from collections.abc import Sequence
from itertools import product
from math import ceil, prod

from pipeline.geometry import Interval, Region
from pipeline.grid import MapGrid
from pipeline.kernels import BACKENDS
from pipeline.stack import BoundStack

TILES = sorted(
    ((h, h * wide) for h in (32, 64, 128, 256, 512, 1024, 2048) for wide in (1, 4, 16) if h * wide <= 2048), key=prod
)
"""Tiles that are tried, in input pixels (y, x), the small ones first; compiled loops like long rows."""


def aligned(edge: int, step: int, unit: int) -> int:
    """Return about ``edge`` input pixels for a tile, a multiple of ``step``: whole write units, or equal parts of one.

    So tiles that begin with a task's region end with it. Where a unit has no such parts, tiles do not heed it.

    >>> [aligned(edge, 2, 2000) for edge in (64, 512, 2048, 4096)], aligned(512, 2, 2 * 997)
    ([64, 500, 2000, 4000], 512)
    """
    edge = ceil(edge / step) * step
    if not unit or unit % step:
        return edge
    if edge >= unit:
        return edge // unit * unit
    part, rest = divmod(unit, ceil(unit / edge))
    return edge if rest or part % step else part


def pieces(stack: BoundStack, place: int, region: Region, extents: Sequence[tuple[int, ...]]) -> list[Region]:
    """Cut off what meets the edge of a map within, of a region of a map that one pass makes.

    There, such as at the last pixel of a pool whose window the edge cuts, layers are made one after another, and whole
    maps are held between them.
    """
    axes = []
    for axis, wanted in enumerate(region):
        inner = Interval(0, extents[1][axis])
        for operation in stack.operations[1 : place + 1]:
            inner = operation.windows[axis].under(inner)
        start, stop = (min(max(end, wanted.start), wanted.stop) for end in (inner.start, inner.stop))
        parts = (Interval(wanted.start, start), Interval(start, stop), Interval(stop, wanted.stop))
        axes.append([part for part in parts if len(part)])
    return list(product(*axes))


def multiple(stack: BoundStack, place: int, grid: MapGrid) -> tuple[int, ...]:
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
