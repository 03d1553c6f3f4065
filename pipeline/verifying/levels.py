"""Verify a pyramid: compare random windows of each level with what NumPy makes of the level before, in float64."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Region
from pipeline.storage.maps import Level, MapArray


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
    """Compare a window of a level with the window of the level before that it is made of."""
    values = m.encoding.decode(before)
    starts = [np.arange(0, n, s) for n, s in zip(before.shape[1:], level.steps, strict=True)]
    reduce = np.maximum.reduceat if m.shrink == "max" else np.add.reduceat
    with np.errstate(invalid="ignore"):
        made = reduce(reduce(values, starts[0], axis=1), starts[1], axis=2)
        sizes = np.add.reduceat(np.add.reduceat(np.abs(values), starts[0], axis=1), starts[1], axis=2)
    if m.shrink == "mean":
        ones = np.add.reduceat(np.add.reduceat(np.ones(values.shape[1:]), starts[0], axis=0), starts[1], axis=1)
        made = made / ones
    found = m.encoding.decode(stored)
    finite = np.isfinite(made) & np.isfinite(found)
    same = (made == found) | (np.isnan(made) & np.isnan(found))
    # Rounded to float32 on the way, and to the stored type.
    allowed = m.encoding.rounding(made[finite]) * (1 + 1e-6) + np.finfo(np.float32).eps * sizes[finite]
    off = np.abs(made[finite] - found[finite]) > allowed
    return Compared(stored.size, int(off.sum() + (~finite & ~same).sum()))
