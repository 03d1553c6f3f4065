"""What a map sums up to, in parts that add up to the same whatever the parts are.

A float32 number is a whole number of 2⁻¹⁴⁹, and its square one of 2⁻²⁹⁸: so sums are whole numbers without end
(Python's int), exact in any order, and rounded once, at the end. They are gathered for each exponent first: R. M. Neal,
"Fast exact summation using small and large superaccumulators", arXiv:1505.05571 (2015).
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled.tally import tally
from pipeline.geometry import Region, pixels
from pipeline.sections import Summaries

ONE = 149
"""The power of two whose whole numbers float32 numbers are."""


@dataclass(frozen=True)
class Sums:
    """What some pixels of one map sum up to.

    Parameters
    ----------
    pixels, missing, infinite
        How many there are, how many of them are NaN, and how many are inf and −inf.
    total, squares
        The sum of the finite numbers in units of 2⁻¹⁴⁹, and that of their squares in units of 2⁻²⁹⁸.
    over
        How many are at least the threshold.
    largest
        The greatest number and the first pixel (y, x), in the map's frame, that has it; None where all are NaN.
    bins
        How many lie in each bin of the histogram.
    """

    pixels: int = 0
    missing: int = 0
    infinite: tuple[int, int] = (0, 0)
    total: int = 0
    squares: int = 0
    over: int = 0
    largest: tuple[float, int, int] | None = None
    bins: tuple[int, ...] = ()

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.pixels + other.pixels,
            self.missing + other.missing,
            (self.infinite[0] + other.infinite[0], self.infinite[1] + other.infinite[1]),
            self.total + other.total,
            self.squares + other.squares,
            self.over + other.over,
            _larger(self.largest, other.largest),
            tuple(map(int.__add__, self.bins, other.bins)) if self.bins and other.bins else self.bins or other.bins,
        )

    def times(self, count: int) -> "Sums":
        """Return what as many such pixels sum up to, the first of them where this one is."""
        inf, minus = self.infinite
        return replace(
            self,
            pixels=count * self.pixels,
            missing=count * self.missing,
            infinite=(count * inf, count * minus),
            total=count * self.total,
            squares=count * self.squares,
            over=count * self.over,
            bins=tuple(count * n for n in self.bins),
        )

    @property
    def numbers(self) -> int:
        """How many pixels are not NaN: those that all else is of."""
        return self.pixels - self.missing

    @property
    def mean(self) -> float:
        """The exact sum, rounded to float64, by the number of pixels; NaN where there are none, or inf and −inf."""
        if not self.numbers or all(self.infinite):
            return math.nan
        if any(self.infinite):
            return math.inf if self.infinite[0] else -math.inf
        return float(Fraction(self.total, 1 << ONE)) / self.numbers

    @property
    def std(self) -> float:
        """The root of the exact mean square deviation (of n, as `numpy.std`), rounded to float64 before and after."""
        if not self.numbers or any(self.infinite):
            return math.nan
        spread = self.numbers * self.squares - self.total**2
        return math.sqrt(Fraction(spread, self.numbers**2 << 2 * ONE))

    def pack(self) -> list[Any]:
        """Return the sums as msgpack takes them."""
        return [
            self.pixels,
            self.missing,
            self.infinite,
            _packed(self.total),
            _packed(self.squares),
            self.over,
            self.largest,
            np.array(self.bins, "<u4").tobytes(),
        ]

    @classmethod
    def unpack(cls, packed: list[Any]) -> "Sums":
        """Return the sums that `pack` made."""
        pixels, missing, infinite, total, squares, over, largest, bins = packed
        return cls(
            pixels,
            missing,
            (infinite[0], infinite[1]),
            int.from_bytes(total, "little", signed=True),
            int.from_bytes(squares, "little", signed=True),
            over,
            None if largest is None else (largest[0], largest[1], largest[2]),
            tuple(np.frombuffer(bins, "<u4").tolist()),
        )


def sum_up(wanted: Summaries, values: NDArray[np.float32], seen: Region, own: Region) -> Sums:
    """Return what (y, x) values over the region ``seen`` of a map sum up to in the region ``own``."""
    rows, columns = (i.within(frame) for i, frame in zip(own, seen, strict=True))
    sums, counts = np.zeros((3, 256), np.int64), np.zeros(4, np.int64)
    edges = edges_of(wanted)
    bins = np.zeros(max(0, len(edges) - 1), np.int64)
    asked = (rows.start, rows.stop), (columns.start, columns.stop)
    over = math.inf if wanted.over is None else wanted.over
    y, x = tally(values, values.view(np.int32), asked[0], asked[1], over, edges, sums, counts, bins)
    total = squares = 0
    for exponent in np.flatnonzero(sums.any(axis=0)).tolist():
        m, low, high = sums[:, exponent].tolist()
        shift = max(exponent, 1) - 1
        total += m << shift
        squares += (low + (high << 24)) << 2 * shift
    return Sums(
        pixels(own),
        int(counts[0]),
        (int(counts[1]), int(counts[2])),
        total,
        squares,
        int(counts[3]),
        None if y < 0 else (float(values[y, x]), seen[0].start + y, seen[1].start + x),
        tuple(bins.tolist()),
    )


def edges_of(wanted: Summaries) -> NDArray[np.float64]:
    """Return the edges of the histogram's bins; none where there is no histogram."""
    if wanted.histogram is None:
        return np.empty(0)
    return np.linspace(*wanted.histogram.range, wanted.histogram.bins + 1)


def _larger(a: tuple[float, int, int] | None, b: tuple[float, int, int] | None) -> tuple[float, int, int] | None:
    if a is None or b is None:
        return a or b
    return min(a, b, key=lambda one: (-one[0], one[1:]))


def _packed(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
