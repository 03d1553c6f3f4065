"""Windows of maps made again from the raw input, and how far what a run has made may be from them."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.geometry import Interval, Region
from pipeline.kept import Kept
from pipeline.kernels import TOLERANCE
from pipeline.operation import Operation
from pipeline.planning import ImagePlan
from pipeline.storage.maps import MapArray
from pipeline.verifying.reference import Positions, Wide, evaluate, magnitude_of

CANCELLED = 0.02
"""The least scale of a map, as a part of the magnitude its sums pass through: where they cancel, their rounding stays.

A tolerance of 1e-5 of it is 2e-7 of the magnitude, three float32 roundings.
"""

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
        How far the numbers of the run may be from these besides the tolerance, pixel by pixel.
    magnitude
        The greatest that the sums of the layers may have passed through.
    """

    plane: int
    own: Region
    seen: Region
    values: Wide
    doubt: Wide
    magnitude: float


def make(image: ImagePlan, kept: Kept, plane: int, own: Region, halo: Sequence[int] = (0, 0)) -> Again:
    """Make a window of a layer's maps and what lies around it."""
    extents = kept.array.extents
    seen = tuple(Interval(max(0, i.start - h), min(i.stop + h, e)) for i, h, e in zip(own, halo, extents, strict=True))
    return make_of(image, image.stack.doubted[: kept.place + 1], image.extents, plane, own, seen)


def make_of(
    image: ImagePlan,
    operations: Sequence[Operation],
    extents: Sequence[tuple[int, ...]],
    plane: int,
    own: Region,
    seen: Region,
) -> Again:
    """Make a window of the maps that some layers end with."""
    largest = [0.0]
    made = evaluate(operations, extents, len(operations) - 1, seen, partial(_read, image, plane, largest))
    doubt = made.doubt.off if made.doubt else np.zeros_like(made.values)
    return Again(plane, own, seen, made.values, doubt, magnitude_of(operations, largest[0]))


def _read(image: ImagePlan, plane: int, largest: list[float], at: Positions) -> Wide:
    region = tuple(Interval(int(axis[0]), int(axis[-1]) + 1) for axis in at)
    values = image.scale.exact(image.source.read(region, plane=plane))
    largest[0] = max(largest[0], float(np.abs(values[np.isfinite(values)]).max(initial=0)))
    return values


def scale_of(windows: Sequence[Again]) -> float:
    """Return what the tolerance is a part of: the greatest value in windows, or `CANCELLED` of the magnitude."""
    finite = [max(np.abs(w.values[np.isfinite(w.values)]).max(initial=0), CANCELLED * w.magnitude) for w in windows]
    return float(max(finite, default=0))


def slack_of(windows: Sequence[Again]) -> list[Wide]:
    """Return for windows of a map how far the numbers of a run may be from them."""
    return [TOLERANCE * scale_of(windows) + window.doubt for window in windows]


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
