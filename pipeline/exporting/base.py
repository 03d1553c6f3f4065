"""What is exported, as a writer reads it, and what a writer has to say."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry import Interval, Region
from pipeline.storage.geo import Geo
from pipeline.storage.handle import Handle
from pipeline.storage.source import Source


@dataclass(frozen=True)
class Selection:
    """Some channels of a region of an image.

    Parameters
    ----------
    source
        The image.
    places
        The numbers of the channels.
    region
        Of (y, x), in pixels of the image.
    window
        The stored numbers to show as black and white, where a writer needs to know.
    geo
        Where the image lies on Earth.
    limit
        What may be held, in bytes.
    """

    source: Source
    places: tuple[int, ...]
    region: Region
    window: tuple[float, float] | None
    geo: Geo | None
    limit: int

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels' names."""
        return tuple(self.source.channels[place] for place in self.places)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of (c, y, x)."""
        return len(self.places), len(self.region[0]), len(self.region[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored numbers."""
        return np.dtype(self.source.dtype)

    @property
    def scale(self) -> tuple[float, float]:
        """The size of a pixel (y, x)."""
        return self.source.scale

    @property
    def translation(self) -> tuple[float, float]:
        """The place of the centre of the region's first pixel (y, x)."""
        parts = zip(self.source.translation, self.source.scale, self.region, strict=True)
        y, x = (shift + size * interval.start for shift, size, interval in parts)
        return y, x

    def band(self, least: int) -> int:
        """Return how many rows to read at a time: whole chunks where the memory allows, and a multiple of ``least``."""
        row = len(self.region[1]) * self.dtype.itemsize
        most = max(1, self.limit // (4 * row) // least)
        return least * min(most, -(-self.source.chunks[0] // least))

    def read(self, channel: int, rows: Interval) -> NDArray[Any]:
        """Return rows of the region of one of the channels (y, x); raises `InputError` where a chunk is damaged."""
        place, start = self.places[channel], self.region[0].start
        wanted = {"c": Interval(place, place + 1), "y": Interval(start + rows.start, start + rows.stop)}
        wanted["x"] = self.region[1]
        axes = self.source.axes
        try:
            box = Handle.open(self.source.array, "r").read(tuple(wanted.get(axis, Interval(0, 1)) for axis in axes))
        except Exception as error:
            raise InputError(
                f"{self.source.path}: channel {self.channels[channel]}, y {wanted['y']}, x {wanted['x']} cannot be "
                f"read: a chunk is damaged or missing ({type(error).__name__}: {error})"
            ) from error
        order = sorted(range(len(axes)), key=lambda n: (axes[n] in "yx", axes[n] == "x"))
        return np.asarray(box, self.source.dtype).transpose(order).reshape(len(rows), len(self.region[1]))


@dataclass(frozen=True)
class Writer:
    """A format: the endings of its files, a function that writes one and returns what could not be written of it."""

    suffixes: tuple[str, ...]
    write: Callable[[Selection, Path], tuple[str, ...]]
