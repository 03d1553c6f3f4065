"""Where an image lies on Earth: a coordinate reference system beside OME-Zarr's scale and translation.

It is kept in a group's attribute `KEY`: ``crs`` as a code such as "EPSG:32633" or as WKT, and ``affine`` as GDAL's six
numbers (a, b, c, d, e, f): world x = a · column + b · row + c and world y = d · column + e · row + f at the upper left
corner of a pixel. OME-Zarr's axes run right and down and viewers want positive scales, so where rows run south (e < 0),
the axis y of the image is minus the world's y.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KEY = "geo"
"""The attribute of a group."""

Pair = tuple[float, float]


@dataclass(frozen=True)
class Geo:
    """A coordinate reference system, and whether an image's axis y is minus the world's."""

    crs: str
    flipped: bool = True

    def affine(self, scale: Sequence[float], translation: Sequence[float]) -> tuple[float, ...]:
        """Return GDAL's six numbers of a level, of the size of its pixels and the first one's centre, both (y, x).

        >>> Geo("EPSG:32633").affine((10.0, 10.0), (-4999995.0, 300005.0))
        (10.0, 0.0, 300000.0, 0.0, -10.0, 5000000.0)
        """
        sign = -1.0 if self.flipped else 1.0
        a, e = scale[1], sign * scale[0]
        return a, 0.0, translation[1] - a / 2, 0.0, e, sign * translation[0] - e / 2

    def attributes(self, scale: Sequence[float], translation: Sequence[float]) -> dict[str, Any]:
        """Return the attributes that say where a level lies."""
        return {KEY: {"crs": self.crs, "affine": list(self.affine(scale, translation))}}


def placed(affine: Sequence[float]) -> tuple[Pair, Pair, bool] | None:
    """Return scale, translation (y, x) and whether y is flipped; None for a grid that is rotated, sheared or mirrored.

    >>> placed((10, 0, 300000, 0, -10, 5000000))
    ((10.0, 10.0), (-4999995.0, 300005.0), True)
    """
    a, b, c, d, e, f = map(float, affine)
    if b or d or a <= 0 or not e or not all(map(math.isfinite, (a, c, e, f))):
        return None
    sign = -1.0 if e < 0 else 1.0
    return (abs(e), a), (sign * (f + e / 2), c + a / 2), e < 0


def read_geo(attributes: dict[str, Any]) -> Geo | None:
    """Return what a group's attributes say; None where they say nothing that can be used."""
    told = attributes.get(KEY)
    if not isinstance(told, dict) or not isinstance(told.get("crs"), str):
        return None
    try:
        where = placed(told["affine"])
    except (KeyError, TypeError, ValueError):
        return None
    return Geo(told["crs"], where[2]) if where else None
