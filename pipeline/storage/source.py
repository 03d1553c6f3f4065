"""Handles to input arrays: what a worker needs to read a region, and nothing else."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, PlaceError
from pipeline.geometry import Interval, Region, is_empty
from pipeline.storage.cache import ChunkCache, Chunked, Part, Readers
from pipeline.storage.geo import Geo, Oblique
from pipeline.storage.handle import Handle
from pipeline.storage.place import Place


@dataclass(frozen=True)
class Outer:
    """An axis that planes lie along, t or z: how many there are, and where they lie in the world."""

    name: str
    extent: int
    first: int = 0
    """Of the planes used, the first one's place in the array."""
    scale: float = 1.0
    translation: float = 0.0
    """Of the first plane used."""
    unit: str | None = None


def place_of(plane: int, outer: Sequence[Outer]) -> tuple[int, ...]:
    """Return a plane's place along each outer axis, the last one running fastest.

    >>> place_of(7, [Outer("t", 3), Outer("z", 5)])
    (1, 2)
    """
    place = []
    for axis in reversed(outer):
        plane, at = divmod(plane, axis.extent)
        place.append(at)
    return tuple(reversed(place))


@dataclass(frozen=True)
class Source:
    """An image as a run reads it: a frozen record that crosses processes; the array is opened at each read.

    It is what the config selects of an array: its planes (all t and z), channels and a region of each plane.

    Parameters
    ----------
    name
        The image's name in the output: the stem of its path.
    path
        What the user wrote, or the glob found.
    array
        The place of the Zarr array.
    axes, shape, grain, unit
        Of the array: the names of its axes, and along each its pixels, those of a chunk, the least that can be decoded,
        and those of what is stored as one object: a shard where there are shards, else a chunk.
    channels, picks
        The names of the channels, and the place of each in the array.
    extents, offset
        Of (y, x), in pixels: how large a plane is, and where in the array it begins.
    dtype
        The type of the pixels.
    outer
        The axes that planes lie along, t before z.
    scale, translation, units
        Of (y, x): the size of a pixel, the place of the centre of the first one, and in what.
    geo
        Where it lies on Earth.
    fill
        What the pixels of a chunk are that is not stored; None where that is not said.
    whole
        Whether all of its chunks are known to be stored: one that is not found has gone.
    scaled
        What the array's attributes say of values that its numbers stand for: see `pipeline.pixels.scaling`.
    digest
        A name for the image's metadata: other metadata, another name.
    """

    name: str
    path: str
    array: Place
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    grain: tuple[int, ...]
    unit: tuple[int, ...]
    channels: tuple[str, ...]
    picks: tuple[int, ...]
    extents: tuple[int, int]
    dtype: str
    offset: tuple[int, int] = (0, 0)
    outer: tuple[Outer, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)
    translation: tuple[float, float] = (0.0, 0.0)
    units: tuple[str | None, str | None] = (None, None)
    geo: Geo | Oblique | None = None
    fill: float | None = None
    whole: bool = False
    scaled: tuple[tuple[str, float], ...] = ()
    digest: str = ""

    @property
    def kind(self) -> tuple["Source", str]:
        """All but what it is called and where it lies: images of one kind are planned alike.

        The fill value is text here, in which −0 is not 0, and NaN is NaN.
        """
        return replace(self, name="", path="", array=Place("file", ""), digest="", fill=None), repr(self.fill)

    @property
    def standing_for(self) -> str:
        """What its attributes say that stored numbers stand for; empty where that is themselves."""
        return ", ".join(f"{name} {number!r}".removesuffix(".0") for name, number in self.scaled)

    @property
    def planes(self) -> int:
        """The number of planes (y, x), each of all channels."""
        return math.prod(axis.extent for axis in self.outer)

    @property
    def chunks(self) -> tuple[int, int]:
        """The pixels (y, x) of a chunk."""
        y, x = (min(self.along(axis, self.grain), self.along(axis, self.shape)) for axis in "yx")
        return y, x

    @property
    def chunk_bytes(self) -> int:
        """The bytes of one decoded chunk over all axes."""
        return math.prod(self.grain) * np.dtype(self.dtype).itemsize

    @property
    def pixel_bytes(self) -> int:
        """The bytes of one place (y, x) of a plane over all channels, decoded."""
        return len(self.channels) * np.dtype(self.dtype).itemsize

    @property
    def decoded_bytes(self) -> int:
        """The bytes that are decoded for one place (y, x) of a plane: chunks may hold other channels and planes too."""
        thick = math.prod(self.along(axis.name, self.grain) for axis in self.outer)
        deep = self.along("c", self.grain)
        return len({pick // deep for pick in self.picks}) * deep * thick * np.dtype(self.dtype).itemsize

    def together(self, plane: int) -> range:
        """Return the planes that lie in the same chunks as a plane along the last outer axis, itself among them."""
        if not self.outer:
            return range(plane, plane + 1)
        axis, thick = self.outer[-1], self.along(self.outer[-1].name, self.grain)
        at = plane % axis.extent
        low = (axis.first + at) // thick * thick - axis.first
        return range(plane - at + max(low, 0), plane - at + min(low + thick, axis.extent))

    def along(self, axis: str, sizes: Sequence[int]) -> int:
        """Return the one of the sizes, one for each axis of the array, that is of the named axis; 1 without it."""
        return sizes[self.axes.index(axis)] if axis in self.axes else 1

    def placed(self, region: Region) -> Region:
        """Return a region (y, x) of a plane in pixels of the array."""
        return tuple(i.moved(o) for i, o in zip(region, self.offset, strict=True))

    def read(self, region: Region, plane: int = 0) -> NDArray[Any]:
        """Return the raw pixels of a region (y, x) of all channels as (c, y, x); raises `InputError` if it cannot.

        Planes are numbered, those of z running fastest.
        """
        with self._told(plane, region):
            return self._plane(Handle.open(self.array, "r"), self.placed(region), plane)

    def parts(self, region: Region, cache: ChunkCache, readers: Readers, plane: int, *, slabs: bool) -> list[Part]:
        """Return what `read` does in parts that cover the region, areas of the image and their pixels.

        Parameters
        ----------
        region
            In pixels of the image.
        cache
            Where chunks are looked for that other blocks read, and left for them.
        readers
            Who else reads the chunks of the region.
        plane
            The number of the plane.
        slabs
            Whether the region is read and kept for all planes that lie in the same chunks.
        """
        placed = self.placed(region)
        with self._told(plane, region):
            array = cache.open(self.array, "r")
            if not cache.limit or is_empty(region):
                return [(region, self._plane(array, placed, plane))]
            if slabs:
                planes = self.together(plane)
                name = (f"{self.array} {placed}", planes.start)
                slab = cache.shared(name, len(planes), lambda: self._get(array, placed, planes))
                return [(region, slab[plane - planes.start])]
            whole = (self.along("y", self.shape), self.along("x", self.shape))
            chunked = Chunked((str(self.array), plane), whole, self.chunks)
            singly = array.files is not None and len(self._runs) == len(self.picks) == 1
            found = chunked.parts(placed, readers, cache, lambda part: self._plane(array, part, plane), singly=singly)
            y, x = self.offset
            return [((rows.moved(-y), columns.moved(-x)), pixels) for (rows, columns), pixels in found]

    @contextmanager
    def _told(self, plane: int, region: Region) -> Iterator[None]:
        """Say of an error where pixels could not be read."""
        try:
            yield
        except PlaceError as error:
            raise InputError(f"{self._where(plane, region)} cannot be read: {error}") from None
        except Exception as error:
            raise InputError(
                f"{self._where(plane, region)} cannot be read: a chunk is damaged or missing "
                f"({type(error).__name__}: {error})"
            ) from error

    def _where(self, plane: int, region: Region) -> str:
        return f"{self.path}: {self.named(plane)}y {region[0]}, x {region[1]}"

    def named(self, plane: int) -> str:
        """Return in words which plane of the array a plane is, to stand before a place in it: ``t 11, z 2, ``."""
        places = zip(self.outer, place_of(plane, self.outer), strict=True)
        return "".join(f"{axis.name} {axis.first + at}, " for axis, at in places)

    def _plane(self, array: Handle, region: Region, plane: int) -> NDArray[Any]:
        """Return a region, in pixels of the array, of one plane."""
        found: NDArray[Any] = self._get(array, region, range(plane, plane + 1))[0]
        return found

    def _get(self, array: Handle, region: Region, planes: range) -> NDArray[Any]:
        """Return a region, in pixels of the array, of planes that follow on each other along the last outer axis."""
        firsts = [axis.first + at for axis, at in zip(self.outer, place_of(planes.start, self.outer), strict=True)]
        boxes = {axis.name: Interval(n, n + 1) for axis, n in zip(self.outer, firsts, strict=True)}
        if self.outer:
            boxes[self.outer[-1].name] = Interval(firsts[-1], firsts[-1] + len(planes))
        order = [self.axes.index(axis) for axis in (*boxes, "c", "y", "x") if axis in self.axes]
        parts = []
        for run in self._runs:
            boxes |= {"c": run, "y": region[0], "x": region[1]}
            try:
                values = np.asarray(array.read(tuple(boxes[axis] for axis in self.axes), whole=self.whole), self.dtype)
            finally:
                self._check_there()
            parts.append(values.transpose(order).reshape(len(planes), len(run), *map(len, region)))
        read = [c for run in self._runs for c in range(run.start, run.stop)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return joined if read == list(self.picks) else joined[:, [read.index(pick) for pick in self.picks]]

    def _check_there(self) -> None:
        """Raise `PlaceError` where the array's files are gone: chunks that were then not found are not fill value."""
        if self.array.is_local and not any((self.array.path / name).exists() for name in ("zarr.json", ".zarray")):
            raise PlaceError(f"{self.array} is gone")

    @cached_property
    def _runs(self) -> tuple[Interval, ...]:
        """The channels to read: those of the same chunk or of neighbouring ones together, so that each is read once."""
        deep = self.along("c", self.grain)
        wanted = sorted(set(self.picks))
        cuts = [n for n, (a, b) in enumerate(pairwise(wanted), 1) if b // deep - a // deep > 1]
        return tuple(
            Interval(wanted[a], wanted[b - 1] + 1) for a, b in zip([0, *cuts], [*cuts, len(wanted)], strict=True)
        )
