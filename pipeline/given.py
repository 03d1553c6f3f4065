"""What a stack's first layer reads: map values over a region, from which tiles take their parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Interval, Region, intersect, is_empty
from pipeline.pixels import PixelScale

Maps = NDArray[np.float32]


class Given(Protocol):
    """Map values (c, y, x) over a region."""

    def cut(self, part: Region) -> Maps:
        """Return the values of a part of the region, perhaps a view."""

    def write(self, part: Region, out: Maps) -> None:
        """Write the values of a part of the region to an array of its shape."""


@dataclass(frozen=True)
class Held:
    """Map values that are there.

    Parameters
    ----------
    values
        (c, y, x).
    region
        Where they lie in their map (y, x).
    """

    values: Maps
    region: Region

    def cut(self, part: Region) -> Maps:
        """Return the view of a part."""
        return within(self.values, part, self.region)

    def write(self, part: Region, out: Maps) -> None:
        """Copy a part."""
        out[...] = self.cut(part)


@dataclass(frozen=True)
class Raw:
    """Raw pixels, such as decoded chunks, that become map values tile by tile: while they are close to the processor.

    Parameters
    ----------
    parts
        Areas (y, x) of the image that cover the region, and their pixels (c, y, x) of the scale's type.
    scale
        What their map values are.
    """

    parts: Sequence[tuple[Region, NDArray[Any]]]
    scale: PixelScale

    def cut(self, part: Region) -> Maps:
        """Return the map values of a part of the region."""
        made = np.empty((len(self.parts[0][1]), *map(len, part)), np.float32)
        self.write(part, made)
        return made

    def write(self, part: Region, out: Maps) -> None:
        """Write the map values of a part of the region to an array of its shape."""
        for area, pixels in self.parts:
            if not is_empty(common := intersect(area, part)):
                self.scale.write_map(within(pixels, common, area), within(out, common, part))

    def only(self, number: float, region: Region) -> bool:
        """Say whether all pixels of a region are one number, or NaN if that is; −0 and 0 are two."""
        return all(_only(within(pixels, intersect(area, region), area), number) for area, pixels in self.parts)


def _only(pixels: NDArray[Any], number: float) -> bool:
    if isnan(number):
        return bool(np.isnan(pixels).all())
    if not (pixels == number).all():
        return False
    # Some layers leave −0 as it is: where it equals 0, a task would give other bits than its neighbour.
    return number != 0 or pixels.dtype.kind != "f" or bool((np.signbit(pixels) == np.signbit(number)).all())


def within(array: NDArray[Any], part: Region, region: Region) -> NDArray[Any]:
    """Return the view of an array (c, y, x) over a region (y, x) that a part of it is."""
    rows, columns = map(Interval.within, part, region)
    return array[:, rows, columns]
