"""The float64 reference: any window of any map straight from the raw input, by the definitions alone.

It shares no interval arithmetic, tile or kernel with a run: it lists, layer by layer, every position under the wanted
pixels and looks up which real pixel stands there. Slow and simple.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Region, Window
from pipeline.operation import UNIT, Operation

GROWING = ("convolution", "pool", "relu", "leaky_relu", "abs", "normalise")
"""Kinds of layers whose results grow with their pixels: a part of the greatest is one of what sums passed through."""

Number = TypeVar("Number", np.float64, np.bool_)
Wide = NDArray[np.float64]
Positions = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Real positions (y, x) of a map, ascending and without gaps."""


@dataclass(frozen=True)
class Doubt:
    """How far the float32 numbers of a run may be from a region of a map.

    Parameters
    ----------
    off
        (c, y, x): how far rounding may take each pixel.
    even
        (y, x): whether all pixels that one was made of are the same in each channel. Such pixels are rounded alike:
        side by side they show no contrast, however far off they are.
    """

    off: Wide
    even: NDArray[np.bool_]


@dataclass(frozen=True)
class Made:
    """A region of a map (c, y, x), and how far a run may be from it where that was asked for."""

    values: Wide
    doubt: Doubt | None = None


def evaluate(
    operations: Sequence[Operation],
    extents: Sequence[tuple[int, ...]],
    place: int,
    region: Region,
    read: Callable[[Positions], Wide],
) -> Made:
    """Return a region of the map after layer ``place`` (from 0), in float64.

    ``read`` gives the map values of the input at real positions. A layer that divides by what it finds, or that cuts
    large numbers to small ones, can make any rounding before it large: where a stack has one that is not `GROWING`, it
    is followed from layer to layer.
    """
    rows, columns = (np.arange(i.start, i.stop) for i in region)
    doubted = any(operation.kind not in GROWING for operation in operations[: place + 1])

    def first(at: Positions) -> Made:
        values = read(at)
        if not doubted:
            return Made(values)
        with np.errstate(all="ignore"):
            off = _finite(np.abs(values.astype(np.float32) - values), values)  # a run has the exact value, rounded once
        return Made(values, Doubt(off, np.ones(values.shape[1:], bool)))

    return _map(operations, extents, place, (rows, columns), first)


def _map(
    operations: Sequence[Operation],
    extents: Sequence[tuple[int, ...]],
    place: int,
    at: Positions,
    read: Callable[[Positions], Made],
) -> Made:
    if place < 0:
        return read(at)
    operation = operations[place]
    if operation.joins_all:
        rows, columns = (np.arange(n) for n in extents[place])
        return _applied(operation, _map(operations, extents, place - 1, (rows, columns), read))
    under, sources, real = [], [], []
    for axis in (0, 1):
        window, extent = operation.windows[axis], extents[place][axis]
        first = at[axis] * window.stride - window.pad_lo
        lined = np.arange(first[0], first[-1] + window.dilation * (window.size - 1) + 1)
        source = [operation.boundary.source(int(p), extent) for p in lined]
        found = [s for s in source if s is not None]
        real_lines = np.arange(min(found), max(found) + 1)
        under.append(real_lines)
        sources.append(np.array([-1 if s is None else s - real_lines[0] for s in source]))
        taps = first[:, None] + window.dilation * np.arange(window.size)
        real.append(((taps >= 0) & (taps < extent)).sum(axis=1))
    before = _map(operations, extents, place - 1, (under[0], under[1]), read)
    values = _laid(before.values, sources, operation.fill)
    doubt = before.doubt and Doubt(_laid(before.doubt.off, sources, 0.0), _laid(before.doubt.even, sources, False))
    return _applied(operation, Made(values, doubt), np.multiply.outer(real[0], real[1]) if operation.average else 1)


def _laid(before: NDArray[Number], sources: Sequence[NDArray[np.int64]], fill: float) -> NDArray[Number]:
    """Return pixels (…, y, x) where their sources say, and what is beyond the edge of the map as ``fill``."""
    block: NDArray[Number] = before[..., sources[0], :][..., sources[1]]
    block[..., sources[0] < 0, :] = fill
    block[..., sources[1] < 0] = fill
    return block


def _applied(operation: Operation, under: Made, divisor: NDArray[np.int64] | int = 1) -> Made:
    """Return what a layer makes of pixels that are all there."""
    block, doubt = under.values, under.doubt
    with np.errstate(all="ignore"):
        out: Wide = operation.block(block, operation).astype(np.float64) / divisor
        if doubt is None:
            return Made(out)
        even = _even(operation.windows, block, doubt.even) if not operation.joins_all else np.zeros((1, 1), bool)
        off = operation.doubt(block, doubt.off, even, operation) / divisor + UNIT * np.abs(out)
        return Made(out, Doubt(_finite(off, out), even))


def _even(windows: tuple[Window, Window], block: Wide, even: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return at which places (y, x) of a window all pixels under it are even, and the same in each channel."""
    low, high = np.where(even, block, np.nan), np.where(even, block, np.nan)  # NaN is not the same as anything
    for axis, window in enumerate(windows, 1):
        taps = [(slice(None),) * axis + (window.taps(n, block.shape[axis]),) for n in range(window.size)]
        low = reduce(np.minimum, (low[tap] for tap in taps))
        high = reduce(np.maximum, (high[tap] for tap in taps))
    same: NDArray[np.bool_] = (low == high).all(axis=0)
    return same


def _finite(off: Wide, values: Wide) -> Wide:
    """Return how far pixels may be off, nothing where there is NaN or an infinity."""
    return np.where(np.isfinite(values) & ~np.isnan(off), off, 0.0)


def magnitude_of(operations: Sequence[Operation], largest: float) -> float:
    """Return the greatest magnitude that sums of a stack may pass through, for inputs no larger than ``largest``.

    Each layer is run once on a window full of the magnitude before it, its arrays without their signs; what rounding
    leaves in a map is a small part of this, even where the sums themselves cancel.
    """
    for operation in operations:
        if operation.bound is not None:
            largest = operation.bound
            continue
        unsigned = replace(operation, arrays={key: np.abs(values) for key, values in operation.arrays.items()})
        if np.isfinite(operation.fill):
            largest = max(largest, abs(operation.fill))
        window = np.full((operation.inputs, *(w.span for w in operation.windows)), largest)
        with np.errstate(all="ignore"):
            largest = float(np.abs(operation.block(window, unsigned)).max())
        if operation.average:
            largest /= operation.windows[0].size * operation.windows[1].size
    return largest
