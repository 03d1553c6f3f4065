"""What is exported, as a writer reads it, and what a writer has to say."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Interval
from pipeline.storage.source import Source


@dataclass(frozen=True)
class Selection:
    """What is exported: some channels of a region of planes of an image.

    Parameters
    ----------
    source
        The image, with the planes, channels and region that were selected and no others.
    windows
        Of each channel the stored numbers to show as black and white, where that is known and a writer asks.
    limit
        What may be held, in bytes.
    """

    source: Source
    windows: tuple[tuple[float, float] | None, ...]
    limit: int

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of (t, c, z, y, x)."""
        outer = {axis.name: axis.extent for axis in self.source.outer}
        return outer.get("t", 1), len(self.source.channels), outer.get("z", 1), *self.source.extents

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored numbers."""
        return np.dtype(self.source.dtype)

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def band(self, least: int) -> int:
        """Return how many rows to read at a time: whole chunks where the memory allows, and a multiple of ``least``."""
        row = self.shape[-1] * self.dtype.itemsize
        most = max(1, self.limit // (4 * row) // least)
        return least * min(most, -(-self.source.chunks[0] // least))

    def read(self, place: tuple[int, int, int], rows: Interval) -> NDArray[Any]:
        """Return rows (y, x) of the plane and channel at a place (t, c, z); `InputError` where a chunk is damaged."""
        t, c, z = place
        one = replace(self.source, channels=self.source.channels[c : c + 1], picks=self.source.picks[c : c + 1])
        box = one.read((rows, Interval(0, self.shape[-1])), plane=t * self.shape[2] + z)
        return box.reshape(box.shape[1:])


@dataclass(frozen=True)
class Writer:
    """A format: the endings of its files, a function that writes one and returns what could not be written of it."""

    suffixes: tuple[str, ...]
    write: Callable[[Selection, Path], tuple[str, ...]]
