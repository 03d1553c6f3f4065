"""Verify tables: their rows against windows of maps that were made again, and the maps' peaks against the rows."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from pipeline.errors import HaloflowError, OutputError
from pipeline.geometry import Interval, Region
from pipeline.planning import ImagePlan, Kept, Plan
from pipeline.sections import Detections, Summaries
from pipeline.storage.findings import TABLES
from pipeline.tables.formats import FORMATS
from pipeline.tables.formats.base import Table
from pipeline.tables.sums import edges_of
from pipeline.tables.watch import wanted_of


@dataclass(frozen=True)
class Again:
    """A window of a layer's maps, made again.

    Parameters
    ----------
    plane, own
        Which plane, and the pixels (y, x) whose peaks are asked for.
    seen, values
        Those pixels and as many around as decide on peaks, cut at the map's edge; and the maps (c, y, x) over them.
    slack
        How far from these the values of the run may be.
    """

    plane: int
    own: Region
    seen: Region
    values: NDArray[np.float64]
    slack: float


@dataclass(frozen=True)
class Peaks:
    """The rows of one image's table of detections, in columns."""

    plane: NDArray[np.int64]
    number: NDArray[np.int64]
    """Which map."""
    at: NDArray[np.int64]
    """(n, 2): the pixels y, x of the map."""
    score: NDArray[np.float64]
    placed: NDArray[np.float64]
    """(n, 2): y, x in the input's array."""
    world: NDArray[np.float64]
    """(n, 2): y, x in world units, as the input's metadata have them."""

    def inside(self, plane: int, region: Region) -> Iterator[int]:
        """Give the rows that lie in a region (y, x) of a plane."""
        y, x = self.at.T
        rows, columns = region
        within = (self.plane == plane) & (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
        yield from np.flatnonzero(within).tolist()


def read(plan: Plan) -> tuple[Table, Table]:
    """Return the tables of detections and of summaries, empty where none was asked for.

    Raises `OutputError` where one is missing or cannot be read.
    """
    detections, summaries = wanted_of(kept.watch for kept in plan.images[0].made)
    peaks = _read(plan, "detections", detections.format) if detections else {}
    sums = _read(plan, "summaries", "parquet") if summaries else {}
    wanted = summaries.model_dump(include={"over", "histogram"}, exclude_none=True) if summaries else {}
    if lacking := [key for key in wanted if key not in sums]:
        path = plan.store / TABLES / "summaries.parquet"
        raise OutputError(
            f"{path}: has no column {lacking[0]}: it is of a run that differs; make it with 'haloflow run --overwrite'"
        )
    return peaks, sums


def _read(plan: Plan, name: str, form: str) -> Table:
    path = plan.store / TABLES / f"{name}.{form}"
    data = plan.store.read(f"{TABLES}/{name}.{form}")
    if data is None:
        raise OutputError(f"{path}: there is no such table; make it with 'haloflow run'")
    try:
        return FORMATS[form].read(io.BytesIO(data))
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes its reader raise
        raise OutputError(f"{path}: cannot be read: {error}") from None


def peaks_of(image: ImagePlan, kept: Kept, table: Table) -> Peaks:
    """Return the rows of an image in the table of detections; raises `OutputError` for a map that it does not have."""
    rows = [n for n, name in enumerate(table.get("image", ())) if name == image.source.name]
    plane = np.zeros(len(rows), np.int64)
    for axis in image.source.outer:
        plane = plane * axis.extent + _column(table, axis.name, rows, np.int64) - axis.first
    names = {name: number for number, name in enumerate(kept.array.channels)}
    try:
        number = np.array([names[table["feature"][n]] for n in rows], np.int64)
    except KeyError as error:
        raise OutputError(
            f"the table of detections has rows of {error}, which '{kept.array.layer}' has no map of"
        ) from None
    return Peaks(
        plane,
        number,
        np.stack([_column(table, name, rows, np.int64) for name in ("map_y", "map_x")], axis=1),
        _column(table, "score", rows, np.float64),
        np.stack([_column(table, name, rows, np.float64) for name in ("y", "x")], axis=1),
        np.stack([_column(table, f"world_{name}", rows, np.float64) for name in "yx"], axis=1) * _signs(kept),
    )


def _signs(kept: Kept) -> tuple[float, float]:
    """Return what turns world coordinates (y, x) as a table has them into those of the metadata."""
    detections = kept.watch.detections if kept.watch else None
    own = detections and detections.format == "geojson" and kept.array.geo and kept.array.geo.flipped
    return (-1.0 if own else 1.0), 1.0


def doubled(kept: Kept, peaks: Peaks) -> list[str]:
    """Say which rows stand in a table twice."""
    keys = np.column_stack([peaks.plane, peaks.number, peaks.at])
    found, counts = np.unique(keys, axis=0, return_counts=True)
    return [f"{kept.array.where(p, _pixel((y, x)))}: stands twice" for p, _, y, x in found[counts > 1].tolist()]


def _column(table: Table, name: str, rows: Sequence[int], kind: type[Any]) -> NDArray[Any]:
    return np.array([table[name][n] for n in rows], kind)


def compare_peaks(image: ImagePlan, kept: Kept, wanted: Detections, peaks: Peaks, again: Again) -> Iterator[str]:
    """Say what in a window is not as the table has it, as far as the slack lets it be told."""
    slack = again.slack
    values = np.where(np.isnan(again.values), -np.inf, again.values)
    size = 2 * wanted.distance + 1
    footprint = np.ones((size, size), bool)
    footprint[wanted.distance, wanted.distance] = False
    others = np.stack([maximum_filter(v, footprint=footprint, mode="constant", cval=-np.inf) for v in values])
    told = np.zeros(values.shape, bool)
    windows = image.stack.window(kept.place)
    for row in peaks.inside(again.plane, again.own):
        y, x = (int(p) - i.start for p, i in zip(peaks.at[row], again.seen, strict=True))
        number, where = int(peaks.number[row]), kept.array.where(again.plane, _pixel(peaks.at[row]))
        told[number, y, x] = True
        value = values[number, y, x]
        if value != peaks.score[row] and not abs(value - peaks.score[row]) <= slack:
            yield f"{where}: the score is {peaks.score[row]:g}, and the map's value {value:g}"
        elif value < wanted.threshold - slack or others[number, y, x] > value + slack:
            yield f"{where}: is no peak"
        for axis, window in enumerate(windows):
            centre = peaks.at[row, axis] * window.stride + (window.span - 1) / 2 - window.pad_lo
            off = peaks.placed[row, axis] - centre - image.source.offset[axis]
            if abs(off) > (0.5 * window.stride if wanted.refine else 0):
                yield f"{where}: is placed {abs(off):g} input pixels from its pixel of the map"
            step, first = kept.array.scale[axis], kept.array.translation[axis]
            world = first + step * (peaks.at[row, axis] + off / window.stride)
            if not math.isclose(world, peaks.world[row, axis], rel_tol=1e-12, abs_tol=1e-6 * abs(step)):
                yield f"{where}: is placed at {peaks.world[row, axis]:g} in the world, and lies at {world:g}"
    clear = (values >= wanted.threshold + slack) & (values > others + 2 * slack) & ~told
    for number, y, x in np.argwhere(clear).tolist():
        at = (y + again.seen[0].start, x + again.seen[1].start)
        if not all(i.start <= p < i.stop for p, i in zip(at, again.own, strict=True)):
            continue
        mine = peaks.score[peaks.number == number]
        if wanted.top is None or len(mine) < wanted.top or values[number, y, x] > mine.min() + slack:
            where = kept.array.where(again.plane, _pixel(at))
            yield f"{where}: a peak of {kept.array.channels[number]} is not in the table"


def compare_sums(
    image: ImagePlan, kept: Kept, wanted: Summaries, table: Table, windows: Sequence[Again]
) -> Iterator[str]:
    """Say what in the table of summaries of a layer cannot be, after windows of it; more where one is a plane."""
    rows = [
        n
        for n, (name, layer) in enumerate(zip(table["image"], table["layer"], strict=True))
        if (name, layer) == (image.source.name, kept.array.layer)
    ]
    maps = len(kept.array.channels)
    if len(rows) != maps * image.source.planes:
        yield f"{kept.array.group}: has {len(rows)} rows of summaries, and {maps * image.source.planes} maps"
        return
    for check in (_wrong, _miscounted, _misplaced):
        for again, number in product(windows, range(maps)):
            row = {name: column[rows[again.plane * maps + number]] for name, column in table.items()}
            where = f"{kept.array.where(again.plane, again.seen)} of {row['feature']}"
            yield from (f"{where}: {reason}" for reason in check(image, kept, wanted, row, again, again.values[number]))


def _misplaced(
    image: ImagePlan, kept: Kept, _: Summaries, row: dict[str, Any], again: Again, values: NDArray[np.float64]
) -> Iterator[str]:
    """Say what is wrong with the place of a map's maximum, as far as a window of it tells."""
    if row["max"] is None:
        return
    at = []
    for axis, (name, window) in enumerate(zip("yx", image.stack.window(kept.place), strict=True)):
        centre = row[f"max_{name}"] - image.source.offset[axis]
        at.append((centre - (window.span - 1) / 2 + window.pad_lo) / window.stride)
        size, world = kept.array.scale[axis], row[f"max_world_{name}"]
        lies = kept.array.translation[axis] + size * at[-1]
        if not math.isclose(world, lies, rel_tol=1e-12, abs_tol=1e-6 * abs(size)):
            yield f"the table's maximum is placed at {world:g} in the world, and lies at {lies:g}"
    if any(p != int(p) for p in at):
        yield "the table's maximum is placed beside the pixels of the map"
        return
    y, x = (int(p) - i.start for p, i in zip(at, again.seen, strict=True))
    if 0 <= y < values.shape[0] and 0 <= x < values.shape[1]:
        value = values[y, x]
        if value != row["max"] and not abs(value - row["max"]) <= again.slack:
            yield f"the table's maximum is {row['max']:g}, and the map's value there {value:g}"


def _wrong(
    _: ImagePlan, kept: Kept, wanted: Summaries, row: dict[str, Any], again: Again, values: NDArray[np.float64]
) -> Iterator[str]:
    slack, pixels = again.slack, math.prod(kept.array.extents)
    numbers = values[~np.isnan(values)]
    if row["pixels"] != pixels:
        yield f"the table counts {row['pixels']} pixels of {pixels}"
    if numbers.size and (row["max"] is None or numbers.max() > row["max"] + slack):
        yield f"{numbers.max():g} is more than the table's maximum of {row['max']}"
    if values.size < pixels or not np.isfinite(numbers).all() or not numbers.size:
        return
    if row["nan"] != pixels - numbers.size:
        yield f"the table counts {row['nan']} pixels that are NaN of {pixels - numbers.size}"
    for name, found in (("max", numbers.max()), ("mean", numbers.mean()), ("std", numbers.std())):
        if not abs(row[name] - found) <= slack:
            yield f"the table's {name} is {row[name]:g}, and the map's {found:g}"
    if wanted.over is not None:
        least, most = ((numbers >= wanted.over + s).mean() for s in (slack, -slack))
        if not least <= row["over"] <= most:
            yield f"the table has {row['over']:g} of the pixels at least {wanted.over:g}, and the map {least:g}"


def _miscounted(
    _: ImagePlan, kept: Kept, wanted: Summaries, row: dict[str, Any], again: Again, values: NDArray[np.float64]
) -> Iterator[str]:
    """Say where a histogram is not that of a whole map."""
    if wanted.histogram and values.size == math.prod(kept.array.extents):
        slack = again.slack
        edges, ordered = edges_of(wanted), np.sort(values[~np.isnan(values)])
        counts = np.cumsum(row["histogram"])
        most = ordered.searchsorted(edges[1:] + slack, "right") - ordered.searchsorted(edges[0] - slack, "left")
        least = ordered.searchsorted(edges[1:] - slack, "left") - ordered.searchsorted(edges[0] + slack, "right")
        for n in np.flatnonzero((counts < least) | (counts > most))[:1].tolist():
            yield f"the table counts {counts[n]} pixels from {edges[0]:g} to {edges[n + 1]:g}, and there are {most[n]}"


def _pixel(at: Sequence[int]) -> Region:
    return tuple(Interval(int(p), int(p) + 1) for p in at)
