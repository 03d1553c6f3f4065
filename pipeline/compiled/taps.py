"""A convolution's weights in the order `pipeline.compiled.vector` takes them, and where taps lie in a block."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import vector
from pipeline.compiled.lanes import flat
from pipeline.compiled.micro import VECTORS
from pipeline.compiled.pooling import COPY
from pipeline.geometry import Window

Array = NDArray[np.float32]

Tables = tuple[int, NDArray[np.int64], Array, NDArray[np.int64]]
"""What `vector.run_rows` takes of a block that is laid out: its pitch, the taps' offsets, weights, and groups."""

Laid = tuple[Array, *Tables]
"""A block laid out, and the tables of it."""

_EXACT = 2.0**-22
"""How far a feature may be from the product of a column and a row, as a part of each weight: float32 rounds as much."""


class Taps:
    """A direct convolution: every tap of every feature.

    Parameters
    ----------
    weights
        (feature, channel, y, x).
    inputs
        The number of maps of a block; features of fewer channels go over the maps one group of channels after another.
    windows
        For y and for x.
    """

    def __init__(self, weights: NDArray[np.float64], inputs: int, windows: tuple[Window, Window]) -> None:
        count, depth, self._height, self._width = weights.shape
        self._depth = depth
        self._y, self._x = windows
        together = max(VECTORS)
        parts = np.array_split(np.arange(count), -(-count // together))
        flat = weights.astype(np.float32).reshape(count, -1)
        self._weights = np.concatenate([flat[part].T.ravel() for part in parts])
        starts = np.cumsum([0, *(flat[part].size for part in parts)])
        self._groups = [
            (m * depth, int(start), len(part), m * count + int(part[0]))
            for m in range(inputs // depth)
            for part, start in zip(parts, starts, strict=False)
        ]

    def lay(self, block: Array) -> Laid:
        """Return a padded block (c, y, x) laid out so that neighbouring outputs lie side by side, and the tables."""
        source, row, plane, part = _side_by_side(block, self._x.stride)
        return source, *self.tables(row, plane, part)

    def tables(self, row: int, plane: int, part: int) -> Tables:
        """Return the tables of a block, by the pixels from a row and from a map to the next.

        ``part`` pixels of a row are there for each place within the stride along x.
        """
        places = (self._depth, self._height, self._width, self._y.dilation, self._x.dilation)
        offsets = _offsets(places, row, plane, self._x.stride, part)
        groups = np.array([(m * plane, *rest) for m, *rest in self._groups], np.int64)
        return row * self._y.stride, offsets, self._weights, groups


class SeparableTaps:
    """Features of one channel that are each the product of a column and a row: a pass down, then a pass across."""

    def __init__(
        self, columns: Sequence[Array], rows: Sequence[Array], inputs: int, windows: tuple[Window, Window]
    ) -> None:
        self._y, self._x = windows
        self._count = len(columns)
        down = np.array(columns, np.float64)[:, None, :, None]
        self._down = Taps(down, inputs, (self._y, Window()))
        self._rows = np.array(rows, np.float32)
        width = self._rows.shape[1]
        self._places = (1, 1, width, 1, self._x.dilation)
        self._groups = [(m, m % self._count * width, 1, m) for m in range(inputs * self._count)]

    def lay(self, block: Array) -> Laid:
        """Return what the pass down makes of a padded block (c, y, x), laid out for the pass across, and the tables."""
        maps, height, width = len(self._groups), *block.shape[1:]
        rows = (height - self._y.span) // self._y.stride + 1
        tall = np.empty((maps, rows, width), np.float32)
        nothing = np.zeros(0, np.int64), np.zeros((0, maps), np.float32), 0, (COPY, 1, 1, 1, 1)
        vector.run_rows(*self._down.lay(block), rows, width, *nothing, tall.shape, flat(tall))
        source, row, plane, part = _side_by_side(tall, self._x.stride)
        groups = np.array([(m * plane, *rest) for m, *rest in self._groups], np.int64)
        return source, row, _offsets(self._places, row, plane, self._x.stride, part), self._rows.reshape(-1), groups


def _side_by_side(block: Array, stride: int) -> tuple[Array, int, int, int]:
    """Return a block, flat, the pixels 0, s, 2s, … of a row first, then 1, s + 1, …; and its row, plane and part."""
    inputs, height, width = block.shape
    if stride == 1:
        return np.ascontiguousarray(block).reshape(-1), width, height * width, width
    part = -(-width // stride)
    split = np.zeros((inputs, height, part * stride), np.float32)
    split[:, :, :width] = block
    split = split.reshape(inputs, height, part, stride).swapaxes(2, 3)
    return np.ascontiguousarray(split).reshape(-1), part * stride, height * part * stride, part


@lru_cache(maxsize=256)
def _offsets(places: tuple[int, ...], row: int, plane: int, stride: int, part: int) -> NDArray[np.int64]:
    depth, height, width, down, across = places
    j = np.arange(width) * across
    columns = j % stride * part + j // stride
    rows = np.arange(height) * down * row
    offsets: NDArray[np.int64] = (np.arange(depth)[:, None, None] * plane + rows[:, None] + columns).ravel()
    return offsets


def separate(feature: NDArray[np.float64]) -> tuple[Array, Array] | None:
    """Return the column and the row whose product a feature (y, x) is, or None where it is no such product.

    The cross of the largest weight gives both: W[:, j] / W[i, j] and W[i, :].

    >>> column, row = separate(np.array([[1.0, 2, 1], [2, 4, 2]]))
    >>> column.tolist(), row.tolist()
    ([0.5, 1.0], [2.0, 4.0, 2.0])
    """
    i, j = np.unravel_index(np.abs(feature).argmax(), feature.shape)
    if not feature[i, j]:
        return None
    column, row = feature[:, j] / feature[i, j], feature[i]
    if (np.abs(np.outer(column, row) - feature) > _EXACT * np.abs(feature)).any():
        return None
    return column.astype(np.float32), row.astype(np.float32)
