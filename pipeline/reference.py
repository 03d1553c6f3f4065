"""The float64 reference: any window of any map straight from the raw input, by the definitions alone.

It shares no interval arithmetic, tile or kernel with a run: it lists, layer by layer, every position under the wanted
pixels and looks up which real pixel stands there. Slow and simple.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Region
from pipeline.operation import Operation

Positions = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Real positions (y, x) of a map, ascending and without gaps."""


def evaluate(
    operations: Sequence[Operation],
    extents: Sequence[tuple[int, ...]],
    place: int,
    region: Region,
    read: Callable[[Positions], NDArray[np.float64]],
    between: type[np.floating] = np.float64,
) -> NDArray[np.float64]:
    """Return a region of the map after layer ``place`` (from 0), in float64.

    ``read`` gives the map values of the input at real positions. They, and the values between layers, are rounded to
    the type ``between``: with float32 the result says how much that rounding alone changes.
    """
    rows, columns = (np.arange(i.start, i.stop) for i in region)
    return _map(operations, extents, place, (rows, columns), lambda at: read(at).astype(between).astype(float), between)


def _map(
    operations: Sequence[Operation],
    extents: Sequence[tuple[int, ...]],
    place: int,
    at: Positions,
    read: Callable[[Positions], NDArray[np.float64]],
    between: type[np.floating],
) -> NDArray[np.float64]:
    if place < 0:
        return read(at)
    operation = operations[place]
    under, sources, real = [], [], []
    for axis in (0, 1):
        window, extent = operation.windows[axis], extents[place][axis]
        first = at[axis] * window.stride - window.pad_lo
        lined = np.arange(first[0], first[-1] + window.dilation * (window.size - 1) + 1)
        source = [operation.boundary.source(int(p), extent) for p in lined]
        found = [s for s in source if s is not None]
        real_lines = np.arange(min(found), max(found) + 1)
        under.append(real_lines)
        sources.append([-1 if s is None else s - real_lines[0] for s in source])
        taps = first[:, None] + window.dilation * np.arange(window.size)
        real.append(((taps >= 0) & (taps < extent)).sum(axis=1))
    before = _map(operations, extents, place - 1, (under[0], under[1]), read, between)
    with np.errstate(all="ignore"):
        block = before[:, sources[0]][:, :, sources[1]]
        block[:, np.array(sources[0]) < 0] = operation.fill
        block[:, :, np.array(sources[1]) < 0] = operation.fill
        out: NDArray[np.float64] = operation.block(block, operation).astype(np.float64)
        if operation.average:
            out /= np.multiply.outer(real[0], real[1])
        return out.astype(between).astype(np.float64)


def magnitude_of(operations: Sequence[Operation], largest: float) -> float:
    """Return the greatest magnitude that sums of a stack may pass through, for inputs no larger than ``largest``.

    Each layer is run once on a window full of the magnitude before it, its arrays without their signs; what rounding
    leaves in a map is a small part of this, even where the sums themselves cancel.
    """
    for operation in operations:
        if operation.bound is not None:
            largest = operation.bound
            continue
        arrays = {key: np.abs(values) for key, values in operation.arrays.items()}
        unsigned = replace(operation, arrays=arrays)
        if np.isfinite(operation.fill):
            largest = max(largest, abs(operation.fill))
        window = np.full((operation.inputs, *(w.span for w in operation.windows)), largest)
        with np.errstate(all="ignore"):
            largest = float(np.abs(operation.block(window, unsigned)).max())
        if operation.average:
            largest /= operation.windows[0].size * operation.windows[1].size
    return largest
