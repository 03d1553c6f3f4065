"""Verify a store: recompute random windows, borders and corners among them, from the raw input in float64."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.api import plan as make_plan
from pipeline.describe import times
from pipeline.errors import OutputError
from pipeline.geometry import Interval, Region
from pipeline.job import Job
from pipeline.kernels import TOLERANCE
from pipeline.planning import ImagePlan, Kept
from pipeline.reference import Positions, evaluate

EDGE = 24
"""The height and width of a window, in pixels of the map."""


@dataclass(frozen=True)
class Verification:
    """How far a store is off.

    ``worst`` is the largest deviation as a part of the scale of its map (the greatest absolute value in the windows),
    beyond what the stored type rounds; ``misplaced`` counts pixels that are NaN on one side only.
    """

    store: str
    windows: int
    pixels: int
    worst: float
    where: str
    misplaced: int
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether every pixel is within the tolerance."""
        return self.worst <= self.tolerance and not self.misplaced

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        return {**self.__dict__, "passed": self.passed}

    def __str__(self) -> str:
        verdict = "verified" if self.passed else "NOT the same"
        nan = f", {self.misplaced} pixels NaN on one side only" if self.misplaced else ""
        return (
            f"{verdict}: {self.store}: {self.windows} windows, {self.pixels} pixels recomputed in float64; the largest "
            f"deviation is {self.worst:.2g} of the map's scale (tolerance {self.tolerance:g}), in {self.where}{nan}"
        )


def verify(job: Job, windows: int = 16, seed: int = 0) -> Verification:
    """Compare a job's output with the float64 reference.

    Parameters
    ----------
    job
        From `pipeline.load`; its output store must be there.
    windows
        How many windows of each kept map: the four corners, the middles of the borders, and random ones.
    seed
        Of the random ones.

    Raises
    ------
    OutputError
        Where the store or one of its maps is missing or has another shape.
    """
    plan = make_plan(job)
    if not Path(plan.store).exists():
        raise OutputError(f"output.store: there is no {plan.store}; make it with 'haloflow run'")
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    count = compared = misplaced = 0
    worst, where = -1.0, "no window"
    for image in plan.images:
        for kept in image.kept:
            name = f"{kept.array.group}"
            stored = _open(plan.store, kept)
            checks = [(region, *_both(image, kept, region, stored)) for region in _windows(kept, windows, draw)]
            scale = max((float(np.max(np.abs(e), initial=0, where=np.isfinite(e))) for _, e, _ in checks), default=0)
            for region, expected, found in checks:
                count, compared = count + 1, compared + expected.size
                misplaced += int((np.isnan(expected) != np.isnan(found)).sum())
                off = _deviation(kept, expected, found) / (scale or 1.0)
                if off > worst:
                    worst, where = off, f"{name} y {region[0]}, x {region[1]}"
    return Verification(plan.store, count, compared, worst, where, misplaced)


def _open(store: str, kept: Kept) -> Any:
    path = f"{store}/{kept.array.group}/0"
    try:
        stored = zarr.open_array(path, mode="r")
    except Exception as error:  # noqa: BLE001 - whatever a damaged store makes zarr raise
        raise OutputError(f"{path}: cannot be read: {error}") from None
    if stored.shape != (len(kept.array.channels), *kept.array.extents):
        raise OutputError(
            f"{path}: is {times(stored.shape)}; the config makes "
            f"{times((len(kept.array.channels), *kept.array.extents))}: it is another run's"
        )
    return stored


def _both(image: ImagePlan, kept: Kept, region: Region, stored: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    expected = evaluate(image.stack.operations, image.extents, kept.place, region, partial(_read, image))
    rows, columns = (slice(i.start, i.stop) for i in region)
    return expected, kept.array.encoding.decode(np.asarray(stored[:, rows, columns]))


def _read(image: ImagePlan, at: Positions) -> NDArray[np.float64]:
    region = tuple(Interval(int(axis[0]), int(axis[-1]) + 1) for axis in at)
    return image.scale.exact(image.source.read(region))


def _deviation(kept: Kept, expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    encoding = kept.array.encoding
    if encoding.is_scaled:
        expected = np.clip(expected, encoding.low, encoding.high)
        allowed: Any = encoding.step
    else:
        allowed = np.abs(expected) * encoding.step
    with np.errstate(invalid="ignore"):
        off = np.where(expected == found, 0.0, np.abs(expected - found) - allowed)
    return float(np.max(off, initial=0.0, where=~np.isnan(off)))


def _windows(kept: Kept, count: int, draw: random.Random) -> Iterator[Region]:
    height, width = kept.array.extents
    bottom, right = max(0, height - EDGE), max(0, width - EDGE)
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    borders = [(0, right // 2), (bottom, right // 2), (bottom // 2, 0), (bottom // 2, right)]
    places = dict.fromkeys([*corners, *borders])
    for _ in range(max(0, count - len(places))):
        places[draw.randint(0, bottom), draw.randint(0, right)] = None
    for y, x in places:
        yield Interval(y, min(y + EDGE, height)), Interval(x, min(x + EDGE, width))
