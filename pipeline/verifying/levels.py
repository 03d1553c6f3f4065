"""Verify a pyramid: compare random windows of each level with what NumPy makes of the level before, in float64."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Region
from pipeline.storage.maps import Level, MapArray

_SUMMED = 2.0**-50
"""How far the mean of 4 pixels may be off, as a part of the sum of their magnitudes: some roundings of float64."""


@dataclass(frozen=True)
class Compared:
    """What a window of a level came to: its pixels, and how many are not what the level before makes."""

    pixels: int
    off: int


def compare(
    m: MapArray,
    read: Callable[[int, int, Region], NDArray[Any]],
    windows: Callable[[tuple[int, int]], Iterator[tuple[int, Region]]],
) -> Iterator[tuple[str, Compared | str]]:
    """Compare windows of every level after the first; gives each window's name and what came of it, or why nothing did.

    Parameters
    ----------
    m
        The map.
    read
        Returns the stored numbers (c, y, x) of a region of a plane of a level, by the numbers of level and plane.
    windows
        Gives planes, and regions of a map of so many pixels (y, x).
    """
    for number, (before, level) in enumerate(zip(m.levels, m.levels[1:], strict=False), 1):
        for plane, region in windows(level.extents):
            name = f"{m.group} level {number} {m.where(plane, region)}"
            try:
                under = read(number - 1, plane, level.before(region, before.extents))
                yield name, _compare(m, level, read(number, plane, region), under)
            except Exception as error:  # noqa: BLE001 - whatever a damaged chunk makes a codec raise
                yield name, str(error)


def _compare(m: MapArray, level: Level, stored: NDArray[Any], before: NDArray[Any]) -> Compared:
    """Compare a window of a level with the window of the level before that it is made of.

    Both are taken as the numbers that are stored, of which the level is made: the greatest of them, and the mean of
    integers, are exact. The mean of floats may round otherwise where its sum in float64 does.
    """
    values, found = (np.where(part == m.encoding.missing, np.nan, part.astype(np.float64)) for part in (before, stored))
    starts = [np.arange(0, n, s) for n, s in zip(before.shape[1:], level.steps, strict=True)]
    reduce = np.maximum.reduceat if m.shrink == "max" else np.add.reduceat
    slack: NDArray[np.float64] | float = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        made = reduce(reduce(values, starts[0], axis=1), starts[1], axis=2)
        if m.shrink == "mean":
            ones = np.add.reduceat(np.add.reduceat(np.ones(values.shape[1:]), starts[0], axis=0), starts[1], axis=1)
            made = made / ones
            if not m.encoding.is_scaled:
                sizes = np.add.reduceat(np.add.reduceat(np.abs(values), starts[0], axis=1), starts[1], axis=2)
                slack = np.where(np.isfinite(sizes), _SUMMED * sizes, 0)
        least, most = (_rounded(m, made + sign * slack) for sign in (-1, 1))
    same = ((least <= found) & (found <= most)) | (np.isnan(made) & np.isnan(found))
    return Compared(stored.size, int((~same).sum()))


def _rounded(m: MapArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is stored for numbers, by way of float32 where these are floats."""
    if m.encoding.is_scaled:
        return np.rint(values)
    return values.astype(np.float32).astype(m.encoding.dtype).astype(np.float64)
