"""Where maps are to lie, and what is seen of them on the way there."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.pixels import Encoding

Places = NDArray[np.intp]


class Room:
    """A part of an array for maps as they are stored; a kernel fills it, or whoever has maps.

    Parameters
    ----------
    numbers
        The part (c, y, x), of the encoding's type.
    encoding
        How maps are stored.
    rows, columns
        Of the pixels that are looked at.
    """

    def __init__(self, numbers: NDArray[Any], encoding: Encoding, rows: Places, columns: Places) -> None:
        self.numbers = numbers
        self.encoding = encoding
        self.rows = rows
        self.columns = columns
        self.low, self.high = np.inf, -np.inf
        self.pixels = np.empty((len(numbers), len(rows), len(columns)), np.float32)
        """Those that are looked at, map values (c, row, column)."""
        self.is_full = False

    def take(self, maps: NDArray[np.float32]) -> None:
        """Store maps (c, y, x) of its extents."""
        self.see(*self.encoding.write(maps, self.numbers))
        self.pixels[...] = maps[:, self.rows[:, None], self.columns]

    def see(self, low: float, high: float) -> None:
        """Learn the range of the maps that it is full of now; the pixels that are looked at are there."""
        self.low, self.high = low, high
        self.is_full = True
