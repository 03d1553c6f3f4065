"""Handles to input arrays: what a worker needs to read a region, and nothing else."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, PlaceError
from pipeline.geometry import Interval, Region, is_empty
from pipeline.storage.cache import ChunkCache, Chunked, Readers
from pipeline.storage.geo import Geo
from pipeline.storage.handle import Handle
from pipeline.storage.place import Place


@dataclass(frozen=True)
class Source:
    """An image as a run reads it: a frozen record that crosses processes; the array is opened at each read.

    Parameters
    ----------
    name
        The image's name in the output: the stem of its path.
    path
        What the user wrote, or the glob found.
    array
        The place of the Zarr array.
    axes
        The names of the array's axes; those beside c, y and x have one pixel.
    channels
        The names of the channels.
    extents, chunks
        Of (y, x), in pixels; chunks are the least that can be decoded.
    dtype
        The type of the pixels.
    chunk_bytes
        Of one decoded chunk over all axes.
    scale, translation, units
        Of (y, x): the size of a pixel, the place of the centre of the first one, and in what.
    geo
        Where it lies on Earth.
    fill
        What the pixels of a chunk are that is not stored; None where that is not said.
    digest
        A name for the image's metadata: other metadata, another name.
    """

    name: str
    path: str
    array: Place
    axes: tuple[str, ...]
    channels: tuple[str, ...]
    extents: tuple[int, int]
    chunks: tuple[int, int]
    dtype: str
    chunk_bytes: int
    scale: tuple[float, float] = (1.0, 1.0)
    translation: tuple[float, float] = (0.0, 0.0)
    units: tuple[str | None, str | None] = (None, None)
    geo: Geo | None = None
    fill: float | None = None
    digest: str = ""

    @property
    def pixel_bytes(self) -> int:
        """The bytes of one place (y, x) over all channels, decoded."""
        return len(self.channels) * np.dtype(self.dtype).itemsize

    def read(self, region: Region, cache: ChunkCache | None = None, readers: Readers = ((), ())) -> NDArray[Any]:
        """Return the raw pixels of a region (y, x) of all channels as (c, y, x); raises `InputError` if it cannot.

        Parameters
        ----------
        region
            In pixels of the image.
        cache
            Where chunks are looked for that other blocks read, and left for them.
        readers
            With a cache: who else reads the chunks of the region.
        """
        try:
            array = cache.open(self.array, "r") if cache else Handle.open(self.array, "r")
            if cache is None or not cache.limit or is_empty(region):
                return self._get(array, region)
            chunked = Chunked(str(self.array), self.extents, self.chunks)
            return chunked.read(region, readers, cache, lambda part: self._get(array, part))
        except PlaceError as error:
            raise InputError(f"{self.path}: y {region[0]}, x {region[1]} cannot be read: {error}") from None
        except Exception as error:
            raise InputError(
                f"{self.path}: y {region[0]}, x {region[1]} cannot be read: a chunk is damaged or missing "
                f"({type(error).__name__}: {error})"
            ) from error

    def _get(self, array: Handle, region: Region) -> NDArray[Any]:
        places = {"c": Interval(0, len(self.channels)), "y": region[0], "x": region[1]}
        box = array.read(tuple(places.get(axis, Interval(0, 1)) for axis in self.axes))
        values = np.asarray(box, self.dtype)
        order = [self.axes.index(axis) for axis in ("c", "y", "x") if axis in self.axes]
        rest = [n for n in range(len(self.axes)) if n not in order]
        return values.transpose([*rest, *order]).reshape(len(self.channels), *map(len, region))
