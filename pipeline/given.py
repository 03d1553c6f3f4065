"""What a stack's first layer reads: map values over a region, from which tiles take their parts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Region

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
class Converted:
    """Raw pixels that become map values tile by tile, so that these exist while they are close to the processor.

    Parameters
    ----------
    pixels
        (c, y, x), of any type.
    region
        Where they lie in the image (y, x).
    convert
        Writes the map values of pixels to an array of their shape.
    """

    pixels: NDArray[Any]
    region: Region
    convert: Callable[[NDArray[Any], Maps], None]

    def cut(self, part: Region) -> Maps:
        """Return the map values of a part."""
        made = np.empty((len(self.pixels), *map(len, part)), np.float32)
        self.write(part, made)
        return made

    def write(self, part: Region, out: Maps) -> None:
        """Convert a part."""
        self.convert(within(self.pixels, part, self.region), out)


def within(array: NDArray[Any], part: Region, region: Region) -> NDArray[Any]:
    """Return the view of an array (c, y, x) over a region (y, x) that a part of it is."""
    rows, columns = (i.within(f) for i, f in zip(part, region, strict=True))
    return array[:, rows, columns]
