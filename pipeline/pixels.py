"""Between stored numbers and map values: which pixel values mean −1 and +1, and how a map is kept in few bits."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.compiled.lanes import side_by_side
from pipeline.compiled.loops import look_up, stretch, survey
from pipeline.compiled.narrowing import halve, quantise
from pipeline.errors import InputError

_TABLE_BITS = 16

FARTHEST = 1e30
"""Beyond this neither a factor nor a distance is one that float32 has with all its digits."""

Line = tuple[np.float32, np.float32, np.float32, np.float32, np.float32]
"""Sign, shift, high, low and beyond: see `pipeline.compiled.loops.stretched`."""


@dataclass(frozen=True, slots=True)
class PixelScale:
    """The pixel values ``black`` and ``white`` of an image of ``dtype`` that mean −1 and +1.

    None stands for the default: the type's range for integers, −1 and +1 (unchanged) for floats.

    >>> PixelScale("uint8").to_map(np.array([0, 51, 255], "u1")).tolist()
    [-1.0, -0.6000000238418579, 1.0]
    """

    dtype: str
    black: float | None = None
    white: float | None = None

    def __post_init__(self) -> None:
        black, white = self.ends
        if black == white:
            raise InputError(f"input.black and input.white are both {black:g}; they must differ")

    @property
    def ends(self) -> tuple[float, float]:
        """Black and white with the defaults filled in."""
        kind = np.dtype(self.dtype)
        if kind.kind in "iu":
            low, high = float(np.iinfo(kind).min), float(np.iinfo(kind).max)
        else:
            low, high = (0.0, 1.0) if kind.kind == "b" else (-1.0, 1.0)
        return low if self.black is None else self.black, high if self.white is None else self.white

    def exact(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return map values in float64: (p − black) / (white − black) · 2 − 1.

        Where 0 lies within these ends or at one of them, as (p − (black + white) / 2) / (white − black) · 2: small
        pixels of int64 would be lost beside the ends, and what is left of them is of full precision.

        >>> PixelScale("int64").exact(np.array([0, 100])).tolist()
        [5.421010862427522e-20, 1.089623183347932e-17]
        """
        black, white = self.ends
        wide = values.astype(np.float64)
        if (black, white) == (-1.0, 1.0):
            return wide
        if black * white <= 0:
            both = black + white
            if np.dtype(self.dtype).kind == "i" and self.black is None and self.white is None:
                both = -1.0  # which is lost in the sum of 64-bit ends
            return (wide - both / 2) / (white - black) * 2 + 0.0  # no −0 in the middle
        return (wide - black) / (white - black) * 2 - 1

    def to_map(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return map values in float32, each the rounded exact one."""
        made = np.empty(values.shape, np.float32)
        self.write_map(values, made)
        return made

    @property
    def line(self) -> Line | None:
        """What gives small integers' map values, bit for bit, as `pipeline.compiled.loops.stretched` takes it.

        None where nothing does: for about one in a hundred of all pairs of black and white that are no integers.
        """
        kind = np.dtype(self.dtype)
        return _line(self) if kind.kind in "iu" and 8 * kind.itemsize <= _TABLE_BITS else None

    def write_map(self, values: NDArray[np.generic], out: NDArray[np.float32]) -> None:
        """Write map values to an array of the same shape; those of small integers by a line or a table."""
        kind = np.dtype(self.dtype)
        if kind.kind in "iub" and 8 * kind.itemsize <= _TABLE_BITS:
            if line := self.line:
                stretch(_rows(values), *line, _planes(out))
            else:
                look_up(_rows(values.view(f"u{kind.itemsize}")), _table(self), _planes(out))
            return
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, as IEEE 754 has it
            out[...] = values if kind.kind == "f" and self.ends == (-1.0, 1.0) else self.exact(values)


def _planes(values: NDArray[Any]) -> NDArray[Any]:
    """Return a view of three axes, as compiled loops take it."""
    return values[(None,) * (3 - values.ndim)]


def _rows(values: NDArray[Any]) -> NDArray[Any]:
    """Return what compiled loops can read: three axes, the pixels of a row side by side."""
    return side_by_side(_planes(values))


_TABLES: dict[PixelScale, NDArray[np.float32]] = {}


def _table(scale: PixelScale) -> NDArray[np.float32]:
    if scale not in _TABLES:
        kind = np.dtype(scale.dtype)
        every = np.arange(2 ** (8 * kind.itemsize), dtype=f"u{kind.itemsize}")
        every = every.astype(bool) if kind.kind == "b" else every.view(kind)
        _TABLES[scale] = scale.exact(every).astype(np.float32)
    return _TABLES[scale]


@cache
def _line(of: PixelScale) -> Line | None:
    """Return the line that gives the table's bits for every number; None where this one does not."""
    black, white = of.ends
    middle, factor = (black + white) / 2, abs(2 / (white - black))
    limits = np.iinfo(of.dtype)
    farthest = max(abs(limits.min - middle), abs(limits.max - middle))
    if not 0 < factor < FARTHEST or farthest > FARTHEST:
        return None
    # Pixels are counted from a place near the middle that has digits enough for the difference to be exact.
    step = 2.0 ** (math.ceil(math.log2(farthest)) - 23)
    near = round(middle / step) * step
    # Where black is above white they are counted downwards: so there is no −0 in the middle.
    sign, high = np.sign(white - black), np.float32(factor)
    beyond = (near - middle) * factor * sign
    line = np.float32(sign), np.float32(-near * sign), high, np.float32(factor - float(high)), np.float32(beyond)
    every = np.arange(len(_table(of)), dtype=f"u{np.dtype(of.dtype).itemsize}").view(of.dtype)
    made = np.empty((1, 1, len(every)), np.float32)
    stretch(_rows(every), *line, made)
    return line if np.array_equal(made[0, 0].view(np.uint32), _table(of).view(np.uint32)) else None


@dataclass(frozen=True, slots=True)
class Encoding:
    """How map values are stored: as floats, or as integers that spread ``low`` … ``high`` over their type.

    An integer q stands for q · scale + offset (the CF conventions' ``scale_factor`` and ``add_offset``, which xarray
    decodes); values outside are cut off, and one integer is kept for NaN.

    >>> Encoding("int8").encode(np.array([-1, 0, 0.5, 9, np.nan], "f4")).tolist()
    [-127, 0, 64, 127, -128]
    >>> Encoding("uint8", 0, 2).encode(np.array([0, 1, 2], "f4")).tolist()
    [0, 127, 254]
    """

    dtype: str = "float32"
    low: float = -1.0
    high: float = 1.0

    @property
    def is_scaled(self) -> bool:
        """Whether the stored numbers are integers."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def _ends(self) -> tuple[int, int, int]:
        limits = np.iinfo(self.dtype)
        if limits.min:
            return -int(limits.max), int(limits.max), int(limits.min)
        return 0, int(limits.max) - 1, int(limits.max)

    @property
    def missing(self) -> float:
        """The stored number that stands for NaN."""
        return self._ends[2] if self.is_scaled else float("nan")

    @property
    def attributes(self) -> dict[str, float | int]:
        """The CF attributes that tell a reader how to decode."""
        if not self.is_scaled:
            return {}
        first, last, missing = self._ends
        scale = (self.high - self.low) / (last - first)
        return {"scale_factor": scale, "add_offset": self.low - first * scale, "missing_value": missing}

    @property
    def counting(self) -> tuple[float, ...] | None:
        """Offset, scale, first, last and missing number of integers, as `quantise` takes them; None for floats."""
        if not self.is_scaled:
            return None
        at = self.attributes
        return float(at["add_offset"]), float(at["scale_factor"]), *map(float, self._ends)

    def encode(self, maps: NDArray[np.float32]) -> NDArray[np.generic]:
        """Return the stored numbers."""
        stored: NDArray[Any] = np.empty(maps.shape, self.dtype)
        self.write(maps, stored)
        return stored

    def write(self, maps: NDArray[np.float32], stored: NDArray[Any]) -> tuple[float, float]:
        """Write the stored numbers of maps to an array of the same shape and of this type, and return the maps' range.

        The least and the greatest number, (inf, −inf) where there is none. All NaN that are stored have the same bits.
        Maps that lie there already, as float32, stay as they are but for that.
        """
        if self.dtype == "float16":
            low, high = halve(_rows(maps), _planes(stored.view(np.uint16)))
        elif self.counting:
            low, high = quantise(_rows(maps), *self.counting, _planes(stored))
        else:
            if not np.may_share_memory(maps, stored):
                stored[...] = maps
            low, high = survey(_planes(stored))
        return float(low), float(high)

    def decode(self, stored: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return map values in float64."""
        values = stored.astype(np.float64)
        if self.is_scaled:
            at = self.attributes
            values = np.where(stored == at["missing_value"], np.nan, values * at["scale_factor"] + at["add_offset"])
        return values

    def rounding(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far stored values may lie from float32 map values because of their type."""
        if self.dtype == "float32":
            return np.zeros_like(values)
        if self.is_scaled:
            return np.full_like(values, float(self.attributes["scale_factor"]) / 2)
        kind = np.finfo(self.dtype)
        return (np.abs(values) * float(kind.eps) + float(kind.smallest_subnormal)) / 2


def stored_dtype(dtype: DTypeLike) -> str:
    """Return the name of a pixel type that images may have; raises `InputError` for any other."""
    kind = np.dtype(dtype)
    if kind.kind not in "biuf" or kind.itemsize > 8:  # Zarr has no longer floats than these
        raise InputError(f"pixels are of type {kind}; they must be booleans, integers or floats of at most 64 bits")
    return kind.newbyteorder("=").name


def scaling(attributes: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the numbers by which the CF conventions decode an array; none where its numbers are its values.

    >>> scaling({"scale_factor": 0.5, "_FillValue": -1, "units": "m"}), scaling({"_FillValue": -1})
    ((('scale_factor', 0.5), ('_FillValue', -1.0)), ())
    """
    told = {}
    for name in ("scale_factor", "add_offset", "missing_value", "_FillValue"):
        number = attributes.get(name)
        # A whole number in JSON may be larger than any float; and NaN, which is not itself, would tell kinds apart.
        if isinstance(number, int | float) and abs(number) <= sys.float_info.max:
            told[name] = float(number)
    decoded = (told.get("scale_factor", 1.0), told.get("add_offset", 0.0)) != (1.0, 0.0)
    return tuple(told.items()) if decoded else ()


def is_interleaved(shape: Sequence[int]) -> bool:
    """Say whether an image of three axes without names is (y, x, c) by its looks, not (c, y, x).

    >>> is_interleaved((480, 640, 3)), is_interleaved((3, 480, 640)), is_interleaved((12, 480, 3))
    (True, False, False)
    """
    return len(shape) == 3 and shape[2] in (3, 4) and shape[0] > 4 * shape[2]
