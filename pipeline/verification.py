"""Verify a store: recompute random windows, borders and corners among them, from the raw input in float64."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import levels, tabled
from pipeline.api import plan as make_plan
from pipeline.describe import times
from pipeline.errors import HaloflowError, OutputError
from pipeline.geometry import Interval, Region, whole
from pipeline.job import Job
from pipeline.kernels import TOLERANCE
from pipeline.planning import ImagePlan, Kept
from pipeline.reference import Positions, evaluate, magnitude_of
from pipeline.storage.maps import MapArray
from pipeline.storage.place import Place
from pipeline.tables.formats.base import Table

NO_LIMIT = 2**62
"""Verifying holds a few windows, however much a run was allowed."""

CANCELLED = 0.02
"""The least scale of a map, as a part of the magnitude its sums pass through: where they cancel, their rounding stays.

A tolerance of 1e-5 of it is 2e-7 of the magnitude, three float32 roundings.
"""

SOME = 9
"""Windows of each further level of a pyramid: the corners, the borders, and a random one."""

SHAKEN = 64
"""How many times what one rounding to float32 between layers changes may be the work of all roundings in their sums."""

SHOWN = 20
"""Findings on tables that are told at the most."""

WHOLE = 2**14
"""Pixels that a plane of a map may have to be summed up again as a whole."""

EDGE = 24
"""The height and width of a window, in pixels of the map."""


@dataclass(frozen=True)
class Verification:
    """How far a store is off.

    ``worst`` is the largest deviation, beyond what a stored type narrower than float32 rounds, as a part of the map's
    scale (the greatest absolute value in the windows, or `CANCELLED` of what its sums pass through); ``misplaced``
    counts pixels that are NaN or infinite on one side only, ``off`` those of a pyramid's further levels that are not
    what the level before makes; ``unreadable`` names the windows that could not be read, ``tables`` says what in the
    tables is not as the maps are.
    """

    store: str
    windows: int
    pixels: int
    worst: float
    where: str
    misplaced: int
    off: int = 0
    unreadable: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether every pixel is within the tolerance."""
        return self.worst <= self.tolerance and not (self.misplaced or self.off or self.unreadable or self.tables)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        return {
            **asdict(self),
            "unreadable": list(self.unreadable),
            "tables": list(self.tables),
            "passed": self.passed,
        }

    def __str__(self) -> str:
        verdict = "verified" if self.passed else "NOT the same"
        odd = f"; {self.misplaced} pixels are NaN or infinite on one side only" if self.misplaced else ""
        odd += f"; {self.off} pixels of further levels are not what the level before makes" if self.off else ""
        lines = [
            f"{verdict}: {self.store}: {self.windows} windows, {self.pixels} pixels recomputed in float64; the largest "
            f"deviation is {self.worst:.2g} of the map's scale (tolerance {self.tolerance:g}), in {self.where}{odd}"
        ]
        lines += [f"cannot be read: {window}" for window in self.unreadable]
        lines += [f"not as the maps are: {row}" for row in self.tables[:SHOWN]]
        return "\n".join([*lines, *([f"… and {more} more"] if (more := len(self.tables) - SHOWN) > 0 else [])])


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
        Where the store or one of its maps is missing, or has another shape or type.
    """
    plan = make_plan(job, memory=NO_LIMIT)
    if not plan.store.exists():
        raise OutputError(f"output.store: there is no {plan.store}; make it with 'haloflow run'")
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    count = compared = misplaced = wrong = 0
    worst, where = 0.0, "every window"
    unreadable: list[str] = []
    wrong_rows: list[str] = []
    tables = tabled.read(plan)
    for image in plan.images:
        for kept in (k for k in image.made if k.watch):
            seen, damaged, odd_rows = _check_tables(image, kept, tables, windows, draw)
            count, compared = count + len(seen), compared + sum(one.values.size for one in seen)
            unreadable, wrong_rows = unreadable + damaged, wrong_rows + odd_rows
        for kept in image.kept:
            arrays = [_open(plan.store, kept.array, number) for number in range(len(kept.array.levels))]
            checks, damaged = _compare(image, kept, arrays[0], windows, draw)
            unreadable += damaged
            some = partial(_windows, kept.array, count=SOME, draw=draw)
            for name, told in levels.compare(kept.array, partial(_cut, kept.array, arrays), some):
                if isinstance(told, str):
                    unreadable.append(f"{name}: {told}")
                else:
                    count, compared, wrong = count + 1, compared + told.pixels, wrong + told.off
            finite = [max(np.abs(e[np.isfinite(e)]).max(initial=0), CANCELLED * m) for _, e, _, m, _ in checks]
            scale = float(max(finite, default=0)) or 1.0
            for window, expected, found, _, shaken in checks:
                count, compared = count + 1, compared + expected.size
                off, odd = _deviation(kept, expected, found)
                off = max(0.0, off - SHAKEN * shaken)
                misplaced += odd
                if off / scale > worst:
                    worst, where = off / scale, window
    return Verification(
        str(plan.store), count, compared, worst, where, misplaced, wrong, tuple(unreadable), tuple(wrong_rows)
    )


Check = tuple[str, NDArray[np.float64], NDArray[np.float64], float, float]


def _compare(
    image: ImagePlan, kept: Kept, stored: Any, windows: int, draw: random.Random
) -> tuple[list[Check], list[str]]:
    """Return for each window where it lies, what the reference and the store say, and how far they may differ.

    That follows from the magnitude of its sums and, for layers that divide by what they find (those with a bound), the
    most that float32 between layers changes: a patch of little contrast beside its offset shows its pixels' rounding.
    """
    checks, damaged = [], []
    for plane, region in _windows(kept.array, kept.array.extents, windows, draw):
        where = f"{kept.array.group} {kept.array.where(plane, region)}"
        try:
            expected, magnitude, shaken = _expected(image, kept, plane, region)
            found = kept.array.encoding.decode(_cut(kept.array, [stored], 0, plane, region))
        except Exception as error:  # noqa: BLE001 - whatever a damaged chunk makes a codec raise
            damaged.append(f"{where}: {error}")
            continue
        checks.append((where, expected, found, magnitude, shaken))
    return checks, damaged


def _expected(image: ImagePlan, kept: Kept, plane: int, region: Region) -> tuple[NDArray[np.float64], float, float]:
    """Return a region of a map by the reference, the magnitude of its sums, and what float32 between layers changes."""
    largest = [0.0]
    read = partial(_read, image, plane, largest)
    expected = evaluate(image.stack.operations, image.extents, kept.place, region, read)
    through = image.stack.operations[: kept.place + 1]
    magnitude, shaken = magnitude_of(through, largest[0]), 0.0
    if any(operation.bound is not None for operation in through):
        rounded = evaluate(image.stack.operations, image.extents, kept.place, region, read, np.float32)
        shaken = float(np.nanmax(np.abs(rounded - expected), initial=0))
    return expected, magnitude, shaken


def _check_tables(
    image: ImagePlan, kept: Kept, tables: tuple[Table, Table], windows: int, draw: random.Random
) -> tuple[list[tabled.Again], list[str], list[str]]:
    """Hold the tables against a layer's maps: return the windows that were made, which cannot be, and what is wrong."""
    wanted, summaries = (kept.watch.detections, kept.watch.summaries) if kept.watch else (None, None)
    rows = tabled.peaks_of(image, kept, tables[0]) if wanted else None
    seen, damaged = _again(image, kept, rows, windows, draw)
    wrong: list[str] = []
    if wanted and rows:
        wrong += tabled.doubled(kept, rows)
        for one in seen:
            wrong += tabled.compare_peaks(image, kept, wanted, rows, one)
    if summaries:
        wrong += tabled.compare_sums(image, kept, summaries, tables[1], seen)
    return seen, damaged, wrong


def _again(
    image: ImagePlan, kept: Kept, rows: tabled.Peaks | None, windows: int, draw: random.Random
) -> tuple[list[tabled.Again], list[str]]:
    """Make windows of a map again, some of them around rows of its table; return them, and which cannot be read."""
    extents = kept.array.extents
    halo = (kept.watch.halo if kept.watch else ()) or (0, 0)
    places = list(_windows(kept.array, extents, windows, draw))
    if math.prod(extents) <= WHOLE:
        places.append((draw.randrange(kept.array.planes), whole(extents)))
    if rows:
        for row in draw.sample(range(len(rows.score)), min(windows, len(rows.score))):
            y, x = rows.at[row].tolist()
            places.append((int(rows.plane[row]), (Interval(y, y + 1), Interval(x, x + 1))))
    made, damaged = [], []
    for plane, own in places:
        seen = tuple(
            Interval(max(0, i.start - h), min(i.stop + h, e)) for i, h, e in zip(own, halo, extents, strict=True)
        )
        try:
            made.append((plane, own, seen, *_expected(image, kept, plane, seen)))
        except Exception as error:  # noqa: BLE001 - whatever a damaged chunk makes a codec raise
            damaged.append(f"{kept.array.group} {kept.array.where(plane, seen)}: {error}")
    finite = [max(np.abs(e[np.isfinite(e)]).max(initial=0), CANCELLED * m) for _, _, _, e, m, _ in made]
    slack = TOLERANCE * float(max(finite, default=0))
    return [tabled.Again(p, own, seen, e, slack + SHAKEN * shaken) for p, own, seen, e, _, shaken in made], damaged


def _cut(m: MapArray, arrays: Sequence[Any], number: int, plane: int, region: Region) -> NDArray[Any]:
    """Return the stored numbers (c, y, x) of a region of a plane of a level."""
    found = np.asarray(arrays[number][m.cut(plane, region)])
    return found.reshape(len(m.channels), *map(len, region))


def _open(store: Place, m: MapArray, number: int) -> Any:
    path = store / m.group / str(number)
    try:
        stored: Any = zarr.open_array(path.store(), mode="r")
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged store makes zarr raise
        raise OutputError(f"{path}: cannot be read: {error}") from None
    wanted = m.shape(m.levels[number])
    if stored.shape != wanted or stored.dtype != m.encoding.dtype:
        raise OutputError(
            f"{path}: is {times(stored.shape)} {stored.dtype}; the config makes {times(wanted)} "
            f"{m.encoding.dtype}: it is another run's"
        )
    return stored


def _read(image: ImagePlan, plane: int, largest: list[float], at: Positions) -> NDArray[np.float64]:
    region = tuple(Interval(int(axis[0]), int(axis[-1]) + 1) for axis in at)
    values = image.scale.exact(image.source.read(region, plane=plane))
    largest[0] = max(largest[0], float(np.abs(values[np.isfinite(values)]).max(initial=0)))
    return values


def _deviation(kept: Kept, expected: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[float, int]:
    """Return the largest deviation of finite pixels, and how many pixels are not finite on one side only."""
    encoding = kept.array.encoding
    if encoding.is_scaled:
        expected = np.clip(expected, encoding.low, encoding.high)
    else:
        with np.errstate(over="ignore"):  # what the stored type cannot hold is infinite in it
            expected = np.where(np.isinf(expected.astype(encoding.dtype)), np.copysign(np.inf, expected), expected)
    finite = np.isfinite(expected) & np.isfinite(found)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    off = np.abs(expected[finite] - found[finite]) - encoding.rounding(expected[finite])
    return float(off.max(initial=0.0)), int((~finite & ~same).sum())


def _windows(m: MapArray, extents: tuple[int, int], count: int, draw: random.Random) -> Iterator[tuple[int, Region]]:
    """Give windows: those of the corners and borders, and random ones, each of a random plane where there are many."""
    height, width = extents
    bottom, right = max(0, height - EDGE), max(0, width - EDGE)
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    borders = [(0, right // 2), (bottom, right // 2), (bottom // 2, 0), (bottom // 2, right)]
    edges = dict.fromkeys([*corners, *borders])
    places = dict.fromkeys((draw.randrange(m.planes), y, x) for y, x in edges)
    for _ in range(4 * count):  # small planes have few places, and the same one may be drawn again
        if len(places) >= count:
            break
        places[draw.randrange(m.planes), draw.randint(0, bottom), draw.randint(0, right)] = None
    for plane, y, x in places:
        yield plane, (Interval(y, min(y + EDGE, height)), Interval(x, min(x + EDGE, width)))
