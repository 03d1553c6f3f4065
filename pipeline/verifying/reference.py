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

MOST = float(np.finfo(np.float32).max)
"""The greatest number of float32."""

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
    vast
        (y, x): whether a sum that one was made of may pass beyond float32, as with nodata of −3.4e38. There a run may
        have an infinity or NaN, and what follows from it.
    """

    off: Wide
    even: NDArray[np.bool_]
    vast: NDArray[np.bool_]


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
    *,
    doubted: bool = False,
) -> Made:
    """Return a region of the map after layer ``place`` (from 0), in float64.

    ``read`` gives the map values of the input at real positions. A layer that divides by what it finds, or that cuts
    large numbers to small ones, can make any rounding before it large: where a stack has one that is not `GROWING`, or
    where that is asked for, the `Doubt` is followed from layer to layer.
    """
    rows, columns = (np.arange(i.start, i.stop) for i in region)
    doubted = doubted or any(operation.kind not in GROWING for operation in operations[: place + 1])

    def first(at: Positions) -> Made:
        values = read(at)
        if not doubted:
            return Made(values)
        with np.errstate(all="ignore"):
            off = _finite(np.abs(values.astype(np.float32) - values), values)  # a run has the exact value, rounded once
        even = np.ones(values.shape[1:], bool)
        vast = np.any(np.isfinite(values) & (np.abs(values) > MOST), axis=0)
        return Made(values, Doubt(off, even, vast))

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
    doubt = before.doubt and Doubt(
        _laid(before.doubt.off, sources, 0.0),
        _laid(before.doubt.even, sources, False),
        _laid(before.doubt.vast, sources, False),
    )
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
        return Made(out, Doubt(_finite(off, out), even, _vast(operation, block, doubt.vast)))


def _vast(operation: Operation, block: Wide, vast: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return at which places (y, x) a sum may pass beyond float32, or has one under it that does."""
    if operation.joins_all:
        return np.full((1, 1), vast.any())
    under: NDArray[np.bool_] = _under(operation.windows, np.logical_or, vast)
    if operation.kind in GROWING:
        sizes = np.abs(np.where(np.isfinite(block), block, 0))
        sums = operation.block(sizes, _unsigned(operation)) * _divisor(operation)
        under = under | (sums > MOST).any(axis=0)
    return under


def _even(windows: tuple[Window, Window], block: Wide, even: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return at which places (y, x) of a window all pixels under it are even, and the same in each channel."""
    some = np.where(even, block, np.nan)  # NaN is not the same as anything
    same: NDArray[np.bool_] = (_under(windows, np.minimum, some) == _under(windows, np.maximum, some)).all(axis=0)
    return same


def _under(windows: tuple[Window, Window], join: np.ufunc, block: NDArray[Number]) -> NDArray[Number]:
    """Return what ``join`` makes of all pixels (…, y, x) under a window, for each of its places."""
    for axis, window in zip((-2, -1), windows, strict=True):
        lines = block.swapaxes(axis, 0)
        taps = (lines[window.taps(n, len(lines))] for n in range(window.size))
        block = reduce(join, taps).swapaxes(axis, 0)
    return block


def _finite(off: Wide, values: Wide) -> Wide:
    """Return how far pixels may be off, nothing where there is NaN or an infinity."""
    return np.where(np.isfinite(values) & ~np.isnan(off), off, 0.0)


def magnitudes_of(operations: Sequence[Operation], largest: float) -> tuple[float, float]:
    """Return the greatest magnitude of a stack's results, for inputs no larger than ``largest``, and of all its sums.

    Each layer is run once on a window full of the magnitude before it, its arrays without their signs; what rounding
    leaves in a map is a small part of this, even where the sums themselves cancel. A sum may be divided afterwards.
    """
    passed = largest
    for operation in operations:
        if operation.bound is not None:
            largest = operation.bound
            continue
        if np.isfinite(operation.fill):
            largest = max(largest, abs(operation.fill))
        window = np.full((operation.inputs, *(w.span for w in operation.windows)), largest)
        with np.errstate(all="ignore"):
            largest = float(np.abs(operation.block(window, _unsigned(operation))).max())
        passed = max(passed, largest * _divisor(operation))
        if operation.average:
            largest /= operation.windows[0].size * operation.windows[1].size
    return largest, passed


def _divisor(operation: Operation) -> float:
    """Return what a layer divides its sums by."""
    return float(operation.options.get("divisor", 1))


def _unsigned(operation: Operation) -> Operation:
    return replace(operation, arrays={key: np.abs(values) for key, values in operation.arrays.items()})
