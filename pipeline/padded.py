"""What a layer reads of the map before it, padded at the map's edges: as one block, or as raw pixels where they lie."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.compiled.lanes import side_by_side
from pipeline.geometry import Boundary, Interval, Pull, intersect, is_empty
from pipeline.given import Given, Raw, within
from pipeline.operation import Operation
from pipeline.pixels import Line

_NONE = -(2**40)
"""Instead of a place where the fill is padded; no place follows it."""


def padded(given: Given, pulls: tuple[Pull, ...], operation: Operation) -> NDArray[np.float32]:
    """Cut out what a layer reads, map values (c, y, x), and pad what was clipped at the edges of the map."""
    read = tuple(pull.read for pull in pulls)
    if not any(pull.is_padded for pull in pulls):
        return given.cut(read)
    # What padding repeats may lie beside the reach: then there is room for both, and the reach is cut out at the end.
    frame = tuple(pull.reach.hull(pull.read) for pull in pulls)
    wide = np.empty((operation.inputs, *map(len, frame)), np.float32)
    if not is_empty(read):
        given.write(read, within(wide, read, frame))
    for axis, (pull, around) in enumerate(zip(pulls, frame, strict=True), 1):
        lines = wide.swapaxes(axis, 0)
        for place, source in pull.padding(operation.boundary):
            lines[place - around.start] = operation.fill if source is None else lines[source - around.start]
    return within(wide, tuple(pull.reach for pull in pulls), frame)


@dataclass(frozen=True)
class Scattered:
    """A padded block of raw integers that lie in several arrays: `pipeline.compiled.gather` makes map values of it.

    Parameters
    ----------
    shape
        Of the block (c, y, x).
    dtype
        Of the integers.
    rows
        For each row of the block the row of the image that stands for it, or less than 0 where that is the fill.
    blanks
        The columns of the block that are the fill.
    pieces
        For each run of pixels that rows have in one array: its first row of the image and the one after its last; its
        first column of the block and its length; the address of its first pixel; and the bytes from there to the next
        channel and to the next row.
    arrays
        What the addresses point to.
    fill
        A map value.
    line
        See `pipeline.pixels.PixelScale.line`.
    """

    shape: tuple[int, int, int]
    dtype: DTypeLike
    rows: NDArray[np.int64]
    blanks: NDArray[np.int64]
    pieces: NDArray[np.int64]
    arrays: tuple[NDArray[Any], ...]
    fill: float
    line: Line

    @property
    def source(self) -> tuple[Any, ...]:
        """What compiled loops take."""
        return np.empty(0, self.dtype), self.pieces, self.rows, self.blanks, self.fill, *self.line


def scattered(raw: Raw, pulls: tuple[Pull, ...], operation: Operation) -> Scattered | None:
    """Return what `padded` gives as raw pixels where they lie; None where no line makes map values of them."""
    if (line := raw.scale.line) is None:
        return None
    read = tuple(pull.read for pull in pulls)
    rows, columns = (_sources(pull, operation.boundary) for pull in pulls)
    runs, arrays, pieces = _runs(columns), list[NDArray[Any]](), list[tuple[int, ...]]()
    for area, pixels in raw.parts:
        if is_empty(part := intersect(area, read)):
            continue
        y, x = part
        # Loops go by addresses: nobody else sees to it that pixels are of this type.
        array = side_by_side(np.require(within(pixels, part, area), raw.scale.dtype, "A"))
        arrays.append(array)
        first = array.__array_interface__["data"][0]
        for column, run in runs:
            if len(common := run.intersect(x)):
                place = column + common.start - run.start
                address = first + (common.start - x.start) * array.itemsize
                pieces.append((y.start, y.stop, place, len(common), address, *array.strides[:2]))
    return Scattered(
        (operation.inputs, len(rows), len(columns)),
        raw.scale.dtype,
        rows,
        np.flatnonzero(columns < 0),
        np.array(pieces, np.int64).reshape(-1, 7),
        tuple(arrays),
        operation.fill,
        line,
    )


def _sources(pull: Pull, boundary: Boundary) -> NDArray[np.int64]:
    """Return which pixel of the map stands for each pixel of a reach."""
    places = np.arange(pull.reach.start, pull.reach.stop)
    for place, source in pull.padding(boundary):
        places[place - pull.reach.start] = _NONE if source is None else source
    return places


def _runs(columns: NDArray[np.int64]) -> list[tuple[int, Interval]]:
    """Return the runs of columns that follow one another in the map: where each begins here, and its pixels there."""
    starts = [0, *(np.flatnonzero(np.diff(columns) != 1) + 1).tolist(), len(columns)]
    return [
        (start, Interval(int(columns[start]), int(columns[stop - 1]) + 1))
        for start, stop in pairwise(starts)
        if columns[start] >= 0
    ]
