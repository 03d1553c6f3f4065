"""The record that joins layers and kernels.

A layer, once it knows the maps it gets and the features it names, is bound to an `Operation`; a kernel backend reads
the operation's ``kind``, arrays and options. So layers and kernels never import each other, and what crosses a
process is one small picklable record.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Boundary, Window

Block = NDArray[np.floating]
"""A block of maps, (channel, y, x), float32 in a run and float64 in the reference."""

UNIT = 2.0**-24
"""How far rounding to float32 takes a number at the most, as a part of it."""

POINT = (Window(), Window())
"""The windows of a layer whose output pixel depends on one input pixel."""


def either_way(block: Block, off: Block, even: NDArray[np.bool_], operation: "Operation") -> Block:
    """Return how far results lie from those of pixels that are all greater, or all less, by as much as they are off.

    That is the most for a layer that looks at one pixel, for a greatest or least one, and for a sum of them.
    """
    del even
    off = rounded(block, off, operation.windows[0].size * operation.windows[1].size)
    out = operation.block(block, operation)
    up, down = (np.abs(operation.block(moved, operation) - out) for moved in (block + off, block - off))
    further: Block = np.fmax(up, down)
    return further


def rounded(block: Block, off: Block, terms: int) -> Block:
    """Return how far pixels are off where the rounding of sums of so many ``terms`` of them is counted as theirs.

    Roundings add up like a random walk: N. Higham, T. Mary, "A New Approach to Probabilistic Rounding Error Analysis",
    SIAM J. Sci. Comput. 41 (2019). Runs over images of noise were off by a quarter of this at the most; beside single
    pixels far above all others they come nearer to it.
    """
    return off + np.where(np.isfinite(block), math.sqrt(terms) * UNIT * np.abs(block), 0)


@dataclass(frozen=True, eq=False)
class Operation:
    """A bound layer.

    Parameters
    ----------
    kind
        The layer's type; kernels look it up.
    name
        The layer's name in the config.
    windows
        One window for y and one for x.
    inputs
        The number of maps it takes.
    maps
        The names of the maps it makes.
    block
        The layer in plain NumPy: ``block(maps, operation)`` takes (inputs, y, x) already padded and gives
        (len(maps), y', x') of the same float type. It must be made of elementwise steps in a fixed order, so that a
        pixel's bits do not depend on the block's shape.
    boundary, fill
        What stands beyond the true edge of the layer's own map.
    average
        Whether the stack divides each result by its number of real taps: the stack alone knows where the edge is.
    arrays, options
        What the kind needs besides.
    work
        Multiply-adds for one output pixel of all maps; for forecasts.
    bound
        The largest magnitude of the results, where that does not follow from the input's.
    joins_all
        Whether it makes one pixel of each whole map: its block takes whole maps, and it has no window.
    subject
        What the window stands for, in the user's words, for errors.
    doubt
        How far rounding to float32 may take the results: ``doubt(maps, off, even, operation)``, for maps of which each
        pixel may be off by so much; ``even`` says of each place (y', x') whether all that is under it is one number
        (in each map), rounded alike.
    """

    kind: str
    name: str
    windows: tuple[Window, Window]
    inputs: int
    maps: tuple[str, ...]
    block: Callable[[Block, "Operation"], Block]
    boundary: Boundary = Boundary.CONSTANT
    fill: float = 0.0
    average: bool = False
    arrays: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    options: Mapping[str, int | str] = field(default_factory=dict)
    work: int = 1
    bound: float | None = None
    joins_all: bool = False
    subject: str = "window"
    doubt: Callable[[Block, Block, NDArray[np.bool_], "Operation"], Block] = either_way

    @cached_property
    def digest(self) -> str:
        """A hash of everything that decides the operation's results."""
        told = hashlib.sha256()
        plain = (self.kind, self.windows, self.inputs, len(self.maps), self.boundary, self.fill, self.average)
        told.update(repr((plain, sorted(self.options.items()))).encode())
        for key in sorted(self.arrays):
            told.update(f"{key}{self.arrays[key].shape}".encode())
            told.update(np.ascontiguousarray(self.arrays[key]).tobytes())
        return told.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Operation):
            return NotImplemented
        return (self.name, self.maps, self.digest) == (other.name, other.maps, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)
