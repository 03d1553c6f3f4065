"""Where an image lies on Earth: a coordinate reference system beside OME-Zarr's scale and translation.

It is kept in a group's attribute `KEY`: ``crs`` as a code such as "EPSG:32633" or as WKT, and ``affine`` as GDAL's six
numbers (a, b, c, d, e, f): world x = a · column + b · row + c and world y = d · column + e · row + f at the upper left
corner of a pixel. OME-Zarr's axes run right and down and viewers want positive scales, so where rows run south (e < 0),
the axis y of the image is minus the world's y.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.errors import HaloflowError
from pipeline.storage.ome import read_level

KEY = "geo"
"""The attribute of a group."""

Pair = tuple[float, float]


@dataclass(frozen=True)
class Geo:
    """The coordinate reference system of an image's coordinates, and whether its axis y is minus the world's."""

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


@dataclass(frozen=True)
class Oblique:
    """A coordinate reference system beside an image's own coordinates: its grid is rotated, sheared or mirrored.

    ``world`` are six numbers as GDAL's, but from the image's x and y to the world's.
    """

    system: str
    world: tuple[float, ...]
    crs: ClassVar[str] = ""
    """Of the image's own coordinates: none."""
    flipped: ClassVar[bool] = False

    @classmethod
    def of(cls, system: str, affine: Sequence[float], scale: Pair, translation: Pair) -> "Oblique | None":
        """Return what the affine of a level of this scale and translation says; None where it is singular."""
        a, b, c, d, e, f = map(float, affine)
        (height, width), (top, left) = scale, translation
        x, y = 0.5 - left / width, 0.5 - top / height  # where in pixels from the corner on the image's 0 lies
        world = (a / width, b / height, c + a * x + b * y, d / width, e / height, f + d * x + e * y)
        area = a * e - b * d
        return cls(system, world) if area and all(map(math.isfinite, (area, *world))) else None

    def affine(self, scale: Sequence[float], translation: Sequence[float]) -> tuple[float, ...]:
        """Return GDAL's six numbers of a level, of the size of its pixels and the first one's centre, both (y, x).

        >>> Oblique.of("EPSG:32633", (3, 4, 100, 4, -3, 200), (1, 1), (0, 0)).affine((2, 2), (0.5, 0.5))
        (6.0, 8.0, 100.0, 8.0, -6.0, 200.0)
        """
        a, b, c, d, e, f = self.world
        (height, width), (y, x) = scale, (t - s / 2 for t, s in zip(translation, scale, strict=True))
        return a * width, b * height, c + a * x + b * y, d * width, e * height, f + d * x + e * y

    def attributes(self, scale: Sequence[float], translation: Sequence[float]) -> dict[str, Any]:
        """Return the attributes that say where a level lies."""
        return {KEY: {"crs": self.system, "affine": list(self.affine(scale, translation))}}


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


def read_geo(attributes: dict[str, Any]) -> Geo | Oblique | None:
    """Return what the attributes of an OME-Zarr image say; None where they say nothing that can be used."""
    told = attributes.get(KEY)
    if not isinstance(told, dict) or not isinstance(told.get("crs"), str):
        return None
    try:
        if where := placed(told["affine"]):
            return Geo(told["crs"], where[2])
        level = read_level("", attributes, 0)
        scale, translation = (
            (along[level.axes.index("y")], along[level.axes.index("x")]) for along in (level.scale, level.translation)
        )
        return Oblique.of(told["crs"], told["affine"], scale, translation)
    except (HaloflowError, KeyError, TypeError, ValueError, OverflowError):
        return None
