"""Windows of maps made again from the raw input, and how far what a run has made may be from them."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import Interval, Region
from pipeline.kept import Kept
from pipeline.kernels import TOLERANCE
from pipeline.operation import Operation
from pipeline.planning import ImagePlan
from pipeline.storage.maps import MapArray
from pipeline.verifying.reference import MOST, Positions, Wide, evaluate, magnitudes_of

CANCELLED = 0.02
"""The least scale of a map, as a part of the magnitude its sums pass through: where they cancel, their rounding stays.

A tolerance of 1e-5 of it is 2e-7 of the magnitude, three float32 roundings.
"""

FAR = 1000
"""How much greater sums of other windows may be, for their values to tell the scale of a map in this one, too."""

WHOLE = 2**14
"""Pixels that a plane of a map may have to be made again as a whole."""

UNDER = 2**20
"""Pixels that the maps and the input under such a plane may have."""

EDGE = 24
"""The height and width of a window, in pixels of the map."""


@dataclass(frozen=True)
class Again:
    """A window of a layer's maps, made again.

    Parameters
    ----------
    plane, own
        Which plane, and the pixels (y, x) that are asked for.
    seen, values
        Those pixels and as many around as decide on peaks, cut at the map's edge; and the maps (c, y, x) over them.
    doubt
        How far the numbers of the run may be from these besides the tolerance, pixel by pixel: infinitely where sums
        may have passed beyond float32.
    magnitude
        The greatest that the sums of the layers may have passed through, and those beside them in a kernel's cells.
    """

    plane: int
    own: Region
    seen: Region
    values: Wide
    doubt: Wide
    magnitude: float


@dataclass
class Reader:
    """Reads map values of a plane of an image, and remembers the greatest magnitude."""

    image: ImagePlan
    plane: int
    largest: float = 0.0

    def read(self, region: Region) -> Wide:
        """Return the map values of a region, in float64."""
        values = self.image.scale.exact(self.image.source.read(region, plane=self.plane))
        self.largest = max(self.largest, float(np.abs(values[np.isfinite(values)]).max(initial=0)))
        return values

    def at(self, positions: Positions) -> Wide:
        """Return the map values at positions without gaps."""
        return self.read(tuple(Interval(int(axis[0]), int(axis[-1]) + 1) for axis in positions))


def make(image: ImagePlan, kept: Kept, plane: int, own: Region, halo: Sequence[int] = (0, 0)) -> Again:
    """Make a window of a layer's maps and what lies around it."""
    extents = kept.array.extents
    seen = tuple(Interval(max(0, i.start - h), min(i.stop + h, e)) for i, h, e in zip(own, halo, extents, strict=True))
    reader = Reader(image, plane)
    reader.read(image.stack.walk({kept.place: seen}, image.extents).read)  # a kernel's whole cells, too
    return make_of(reader, image.stack.doubted[: kept.place + 1], image.extents, own, seen)


def make_of(
    reader: Reader,
    operations: Sequence[Operation],
    extents: Sequence[tuple[int, ...]],
    own: Region,
    seen: Region,
) -> Again:
    """Make a window of the maps that some layers end with."""
    place = len(operations) - 1
    made = evaluate(operations, extents, place, seen, reader.at)
    magnitude, passed = magnitudes_of(operations, reader.largest)
    if passed > MOST and made.doubt is None:
        made = evaluate(operations, extents, place, seen, reader.at, doubted=True)
    doubt = np.where(made.doubt.vast, np.inf, made.doubt.off) if made.doubt else np.zeros_like(made.values)
    return Again(reader.plane, own, seen, made.values, doubt, magnitude)


def scales_of(windows: Sequence[Again]) -> list[float]:
    """Return for windows of a map what the tolerance is a part of.

    The greatest value in windows, or `CANCELLED` of the magnitude; but not in those whose sums are `FAR` greater than a
    window's own: beside nodata of −3.4e38 everything else would be right. Where all is 0 that is the least of the
    others, and 0 where there are none.
    """
    own = [max(np.abs(w.values[np.isfinite(w.values)]).max(initial=0), CANCELLED * w.magnitude) for w in windows]
    least = min((scale for scale in own if scale), default=0.0)
    like = [[s for s, other in zip(own, windows, strict=True) if other.magnitude <= FAR * w.magnitude] for w in windows]
    return [float(max(scales) or least) for scales in like]


def slack_of(windows: Sequence[Again]) -> list[Wide]:
    """Return for windows of a map how far the numbers of a run may be from them."""
    return [TOLERANCE * scale + one.doubt for scale, one in zip(scales_of(windows), windows, strict=True)]


def is_small(image: ImagePlan, kept: Kept) -> bool:
    """Say whether planes of a layer's maps can be made again as a whole."""
    under = image.extents[: kept.place + 1]
    return math.prod(kept.array.extents) <= WHOLE and max(map(math.prod, under)) <= UNDER


def places(m: MapArray, extents: tuple[int, int], count: int, draw: random.Random) -> Iterator[tuple[int, Region]]:
    """Give windows: those of the corners and borders, and random ones, each of a random plane where there are many."""
    height, width = extents
    bottom, right = max(0, height - EDGE), max(0, width - EDGE)
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    borders = [(0, right // 2), (bottom, right // 2), (bottom // 2, 0), (bottom // 2, right)]
    edges = dict.fromkeys([*corners, *borders])
    found = dict.fromkeys((draw.randrange(m.planes), y, x) for y, x in edges)
    for _ in range(4 * count):  # small planes have few places, and the same one may be drawn again
        if len(found) >= count:
            break
        found[draw.randrange(m.planes), draw.randint(0, bottom), draw.randint(0, right)] = None
    for plane, y, x in found:
        yield plane, (Interval(y, min(y + EDGE, height)), Interval(x, min(x + EDGE, width)))


def deviation(kept: Kept, again: Again, found: Wide) -> tuple[float, int]:
    """Return the largest deviation of finite pixels, and how many pixels are not finite on one side only."""
    encoding, expected, doubt = kept.array.encoding, again.values, again.doubt
    if encoding.is_scaled:
        expected = np.clip(expected, encoding.low, encoding.high)
    else:
        with np.errstate(over="ignore"):  # what the stored type cannot hold is infinite in it
            expected = np.where(np.isinf(expected.astype(encoding.dtype)), np.copysign(np.inf, expected), expected)
    finite = np.isfinite(expected) & np.isfinite(found)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    off = np.abs(expected[finite] - found[finite]) - encoding.rounding(expected[finite]) - doubt[finite]
    return float(off.max(initial=0.0)), int((~finite & ~same & np.isfinite(doubt)).sum())
