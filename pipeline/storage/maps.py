"""A kept map as it is stored: an OME-Zarr image of one array, or of several for a pyramid."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import gcd, prod
from typing import Any, Literal

import numpy as np

from pipeline.geometry import Interval, Region
from pipeline.pixels import Encoding
from pipeline.storage.codecs import Codec
from pipeline.storage.geo import Geo, Oblique
from pipeline.storage.metadata import Placed, Version, Window, describe
from pipeline.storage.source import Outer, place_of

Shrink = Literal["mean", "max"]
"""How a pixel of a pyramid's level is made of the pixels of the level before."""

TOP = 1024
"""Pixels a side that a pyramid's last level has at the most; fewer where a chunk has fewer."""

LEAST = 128
"""Pixels a side that a write unit of a level made along with its task has at least: smaller objects cost too much."""


@dataclass(frozen=True)
class Level:
    """One array of a kept map; all of (y, x), in its own pixels.

    Parameters
    ----------
    extents, chunks, shards
        Of the array; no shards where chunks are objects of their own.
    steps
        How many pixels of the level before make one of this: 2, or 1 along an axis of one pixel.
    reduction
        How many pixels of the map make one of this.
    along
        Whether a task writes it along with the map: its write units then stand for the same parts of the image as
        the map's own.
    """

    extents: tuple[int, int]
    chunks: tuple[int, int]
    shards: tuple[int, int] | None = None
    steps: tuple[int, int] = (1, 1)
    reduction: tuple[int, int] = (1, 1)
    along: bool = True

    @property
    def unit(self) -> tuple[int, int]:
        """The pixels of what is written as one object: a shard where there are shards, else a chunk."""
        return self.shards or self.chunks

    @property
    def counts(self) -> tuple[int, int]:
        """The number of write units."""
        return _pair(-(-e // u) for e, u in zip(self.extents, self.unit, strict=True))

    def region(self, place: tuple[int, int]) -> Region:
        """Return the pixels of a write unit, those beyond the end left out."""
        return tuple(
            Interval(n * u, min((n + 1) * u, e)) for n, u, e in zip(place, self.unit, self.extents, strict=True)
        )

    def before(self, region: Region, extents: tuple[int, int]) -> Region:
        """Return the pixels of the level before, of the given extents, that make a region of this."""
        return tuple(
            Interval(i.start * s, min(i.stop * s, e)) for i, s, e in zip(region, self.steps, extents, strict=True)
        )


def pyramid(finest: Level) -> tuple[Level, ...]:
    """Return the levels after the finest, down to about one chunk.

    A level of several chunks is written along with the tasks as long as a write unit of the finest stands for a whole
    one of it, of at least `LEAST` pixels a side. So tasks need not know of levels, and what is left is small.

    >>> for level in pyramid(Level((5000, 3000), (1024, 1024))):
    ...     print(level.extents, level.chunks, level.along)
    (2500, 1500) (512, 512) True
    (1250, 750) (256, 256) True
    (625, 375) (625, 375) False
    """
    made: list[Level] = []
    last = finest
    while any(e > min(c, TOP) for e, c in zip(last.extents, finest.chunks, strict=True)):
        last = _next(finest, last)
        made.append(last)
    return tuple(made)


def _next(finest: Level, last: Level) -> Level:
    steps = _pair(min(2, e) for e in last.extents)
    extents = _pair(-(-e // s) for e, s in zip(last.extents, steps, strict=True))
    axes = [_axis(finest, last, axis) for axis in (0, 1)]
    several = finest.counts == (1, 1) or any(e > c for e, c in zip(extents, finest.chunks, strict=True))
    along = last.along and several and None not in axes
    sizes = [axis if along and axis else _apart(finest, last, n) for n, axis in enumerate(axes)]
    chunks, units = (_pair(part) for part in zip(*sizes, strict=True))
    return Level(
        extents=extents,
        chunks=chunks,
        shards=units if finest.shards and units != chunks else None,
        steps=steps,
        reduction=_pair(r * s for r, s in zip(last.reduction, steps, strict=True)),
        along=along,
    )


def _axis(finest: Level, last: Level, axis: int) -> tuple[int, int] | None:
    """Return chunk and write unit along an axis of the level after ``last``, if it is made along; None if it cannot."""
    reduction = last.reduction[axis] * min(2, last.extents[axis])
    chunk, unit = finest.chunks[axis], finest.unit[axis]
    if unit >= finest.extents[axis]:
        return _apart(finest, last, axis)
    if unit % reduction or unit // reduction < LEAST:
        return None
    return gcd(chunk, unit // reduction), unit // reduction


def _apart(finest: Level, last: Level, axis: int) -> tuple[int, int]:
    """Return chunk and write unit along an axis of the level after ``last``: the finest's, no larger than the level."""
    extent = -(-last.extents[axis] // 2)
    chunk = min(finest.chunks[axis], extent)
    return chunk, chunk * min(finest.unit[axis] // finest.chunks[axis], -(-extent // chunk))


def _pair(numbers: Iterable[int]) -> tuple[int, int]:
    y, x = numbers
    return y, x


@dataclass(frozen=True)
class MapArray:
    """One kept layer of one image as it is stored: an OME-Zarr image (t, c, z, y, x), t and z where its input has them.

    ``extents``, ``chunks``, ``shards``, ``scale``, ``translation`` and ``units`` are of (y, x).
    """

    image: str
    layer: str
    channels: tuple[str, ...]
    extents: tuple[int, int]
    chunks: tuple[int, int]
    encoding: Encoding
    compression: Codec
    scale: tuple[float, float]
    translation: tuple[float, float]
    units: tuple[str | None, str | None]
    fill: float = 0
    """The stored number of pixels whose chunk is not written."""
    shards: tuple[int, int] | None = None
    """Where chunks lie together in larger objects, the pixels of one."""
    shrink: Shrink | None = None
    """How further levels are made, where there are any."""
    version: Version = "0.5"
    """Of OME-Zarr."""
    geo: Geo | Oblique | None = None
    """Where the image lies on Earth."""
    outer: tuple[Outer, ...] = ()
    """The axes t and z, each as its input has it; a chunk or shard is of one plane."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the arrays' axes, in the order of OME-Zarr."""
        return tuple(sorted(("c", "y", "x", *(axis.name for axis in self.outer)), key="tczyx".index))

    def full(self, c: Any, inner: Sequence[Any], outer: Sequence[Any]) -> tuple[Any, ...]:
        """Return what is said of c, of (y, x) and of the outer axes in the order of the arrays' axes."""
        names = ("c", "y", "x", *(axis.name for axis in self.outer))
        said = dict(zip(names, (c, *inner, *outer), strict=True))
        return tuple(said[axis] for axis in self.axes)

    def shape(self, level: Level) -> tuple[int, ...]:
        """Return the extents of a level's array along all axes."""
        return self.full(len(self.channels), level.extents, [axis.extent for axis in self.outer])

    def one(self, inner: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of pixels (y, x) of one channel of one plane."""
        return self.full(1, inner, [1] * len(self.outer))

    def cut(self, plane: int, region: Region) -> tuple[slice, ...]:
        """Return which part of an array a region (y, x) of a plane is, over all channels."""
        outer = [slice(at, at + 1) for at in place_of(plane, self.outer)]
        return self.full(slice(None), [slice(i.start, i.stop) for i in region], outer)

    def box(self, region: Region, plane: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the place of the first write unit of a region (y, x) of whole ones of a plane, and how many it has."""
        first = [i.start // n for i, n in zip(region, self.unit, strict=True)]
        counts = [-(-i.stop // n) - f for i, n, f in zip(region, self.unit, first, strict=True)]
        outer = place_of(plane, self.outer)
        return self.full(0, first, outer), self.full(len(self.channels), counts, [1] * len(outer))

    def where(self, plane: int, region: Region) -> str:
        """Say where a region (y, x) of a plane lies."""
        places = zip(self.outer, place_of(plane, self.outer), strict=True)
        outer = "".join(f"{axis.name} {at}, " for axis, at in places)
        return f"{outer}y {region[0]}, x {region[1]}"

    @property
    def planes(self) -> int:
        """The number of planes."""
        return prod(axis.extent for axis in self.outer)

    @property
    def group(self) -> str:
        """The path of the map's group in the store."""
        return f"{self.image}/{self.layer}"

    @property
    def unit(self) -> tuple[int, int]:
        """The pixels (y, x) of what is written as one object: a shard where there are shards, else a chunk."""
        return self.shards or self.chunks

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The arrays ``0``, ``1``, … of the map, the finest first."""
        finest = Level(self.extents, self.chunks, self.shards)
        return (finest, *(pyramid(finest) if self.shrink else ()))

    def attributes(self, windows: Sequence[Window]) -> dict[str, Any]:
        """Return the OME-Zarr attributes; the windows, of map values, are what a viewer should show of each channel."""
        made: dict[str, Any] = json.loads(_described(replace(self, image="")))
        inside = made.get("ome", made)
        inside["multiscales"][0]["name"] = self.title
        for channel, window in zip(inside["omero"]["channels"], self.stored(windows), strict=True):
            channel["window"] = window
        return made

    @property
    def title(self) -> str:
        """What viewers call the map."""
        return f"{self.image} {self.layer}"

    def stored(self, windows: Sequence[Window]) -> list[dict[str, float]]:
        """Return windows of map values as they stand in the metadata."""
        return [self._stored(window).to_dict() for window in windows]

    def placed(self, number: int, level: Level) -> Placed:
        """Say where a level lies: the centre of its first pixel is that of ``reduction`` pixels of the map."""
        scale = [s * r for s, r in zip(self.scale, level.reduction, strict=True)]
        shift = [t + s * (r - 1) / 2 for t, s, r in zip(self.translation, self.scale, level.reduction, strict=True)]
        return Placed(
            str(number),
            self.full(1.0, scale, [axis.scale for axis in self.outer]),
            self.full(0.0, shift, [axis.translation for axis in self.outer]),
        )

    def _stored(self, window: Window) -> Window:
        """Return a window in stored numbers, which values outside of an integer's range are cut to."""
        if not self.encoding.is_scaled:
            return window
        at, ends = self.encoding.attributes, (self.encoding.low, self.encoding.high)
        numbers = np.array([window.low, window.high, window.start, window.end]).clip(*ends)
        return Window.of(*((numbers - at["add_offset"]) / at["scale_factor"]).tolist())


@lru_cache(maxsize=256)
def _described(m: MapArray) -> str:
    """Return the attributes of maps of a kind as JSON: to check them takes milliseconds."""
    axes = list(zip(m.axes, m.full(None, m.units, [axis.unit for axis in m.outer]), strict=True))
    described = describe(
        m.title,
        axes,
        [m.placed(number, level) for number, level in enumerate(m.levels)],
        m.channels,
        [Window.of(0.0, 1.0)] * len(m.channels),
        version=m.version,
        shrunk=m.shrink,
    )
    return json.dumps({**described, **(m.geo.attributes(m.scale, m.translation) if m.geo else {})})
