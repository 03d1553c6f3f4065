"""Verify the table of detections: each row by itself, and against windows of maps that were made again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.spatial import KDTree

from pipeline.geometry import Region
from pipeline.kept import Kept
from pipeline.planning import ImagePlan
from pipeline.sections import Detections
from pipeline.verifying.again import Again
from pipeline.verifying.reference import Wide
from pipeline.verifying.tables import Rows, pixel


@dataclass(frozen=True)
class Peaks:
    """The rows of one image in a table of detections, in columns; those left out that are of no pixel of its maps."""

    table: Rows
    rows: NDArray[np.int64]
    """Their numbers in the table."""
    plane: NDArray[np.int64]
    number: NDArray[np.int64]
    """Which map."""
    at: NDArray[np.int64]
    """(n, 2): the pixels y, x of the map."""
    score: Wide
    wrong: tuple[str, ...]
    """What is wrong with the rows that are left out."""

    @classmethod
    def of(cls, image: ImagePlan, kept: Kept, table: Rows) -> "Peaks":
        """Return the rows of an image in a table."""
        rows = table.of(image)
        wrong: list[str] = []
        there = np.ones(len(rows), bool)

        def within(column: str, first: int, extent: int) -> NDArray[np.int64]:
            nonlocal there
            found = table.columns[column][rows]
            good = (found >= first) & (found < first + extent) & (found == np.floor(found))
            wrong.extend(table.wrong(column, rows, ~good, lambda _: f"{first} to {first + extent - 1}"))
            there &= good
            return np.where(good, found - first, 0).astype(np.int64)

        plane = np.zeros(len(rows), np.int64)
        for axis in image.source.outer:
            plane = plane * axis.extent + within(axis.name, axis.first, axis.extent)
        at = [within(f"map_{name}", 0, extent) for name, extent in zip("yx", kept.array.extents, strict=True)]
        channels = kept.array.channels
        numbers = {name: number for number, name in enumerate(channels)}
        number = np.array([numbers.get(name, -1) for name in table.columns["feature"][rows]], np.int64)
        wrong += table.wrong("feature", rows, number < 0, lambda _: " or ".join(channels))
        there &= number >= 0
        pixels, score = np.stack(at, axis=1)[there], table.columns["score"][rows][there].astype(np.float64)
        return cls(table, rows[there], plane[there], number[there], pixels, score, tuple(wrong))

    def inside(self, plane: int, region: Region) -> Iterator[int]:
        """Give the places of the rows that lie in a region (y, x) of a plane."""
        y, x = self.at.T
        rows, columns = region
        within = (self.plane == plane) & (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
        yield from np.flatnonzero(within).tolist()


def check(image: ImagePlan, kept: Kept, wanted: Detections, peaks: Peaks) -> Iterator[str]:
    """Say which rows cannot be, whatever the maps: by their order, places, scores, and how near and many they are."""
    table, rows = peaks.table, peaks.rows

    def near(column: str, expected: Wide, within: float) -> Iterator[str]:
        off = ~(np.abs(table.columns[column][rows] - expected) <= within + 1e-12 * np.abs(expected) * (within > 0))
        about = f" ± {within}" if within >= 0.5 else ""
        yield from table.wrong(column, rows, off, lambda n: f"{float(expected[n])!r}{about}")

    yield from _order(kept, peaks)
    yield from _world_of_planes(image, peaks, near)
    geo = kept.array.geo
    for axis, (name, window) in enumerate(zip("yx", image.stack.window(kept.place), strict=True)):
        middle = (window.span - 1) / 2 - window.pad_lo + image.source.offset[axis]
        centre = (peaks.at[:, axis] * window.stride).astype(np.float64) + middle
        cut = image.stack.cut(kept.place, axis, peaks.at[:, axis], image.extents)
        yield from near(name, centre - cut, 0.5 * window.stride if wanted.refine else 0)
        step, first = kept.array.scale[axis], kept.array.translation[axis]
        off = (table.columns[name][rows] - centre) / window.stride
        sign = -1 if name == "y" and wanted.format == "geojson" and geo and geo.flipped else 1
        yield from near(f"world_{name}", sign * (first + step * (peaks.at[:, axis] + off)), 1e-6 * abs(step))
    low = ~(peaks.score >= wanted.threshold)
    yield from table.wrong("score", rows, low, lambda _: f"at least {wanted.threshold:g}")
    # Those of other planes and features are far away along axes of their own.
    apart = np.column_stack([peaks.plane, peaks.number]) * (wanted.distance + 1)
    for a, b in sorted(KDTree(np.hstack([apart, peaks.at])).query_pairs(wanted.distance, np.inf)):
        if (peaks.at[a] != peaks.at[b]).any():  # else it stands twice
            where = kept.array.where(int(peaks.plane[a]), pixel(peaks.at[a]))
            yield (
                f"{table.name}: row {rows[b]}: is a peak of {kept.array.channels[peaks.number[a]]} within "
                f"{wanted.distance} pixels of that of row {rows[a]}, {where}"
            )
    counts = np.bincount(peaks.number, minlength=len(kept.array.channels)).tolist()
    for feature, count in zip(kept.array.channels, counts, strict=True):
        if wanted.top and count > wanted.top:
            yield f"{table.name}: {image.source.name} has {count} peaks of {feature}; expected at most {wanted.top}"


def _order(kept: Kept, peaks: Peaks) -> Iterator[str]:
    """Say which rows stand twice, or do not stand in the order of plane, y, x and feature."""
    keys = np.column_stack([peaks.plane, peaks.at, peaks.number])
    before = np.zeros(max(0, len(keys) - 1), bool)
    for a, b in ((column[:-1], column[1:]) for column in reversed(keys.T)):
        before = (a < b) | ((a == b) & before)
    same = (keys[:-1] == keys[1:]).all(axis=1)
    for n in np.flatnonzero(~before & ~same).tolist():
        one, other = (kept.array.where(int(keys[m, 0]), pixel(keys[m, 1:3])) for m in (n, n + 1))
        yield (
            f"{peaks.table.name}: row {peaks.rows[n + 1]} of {other} stands after row {peaks.rows[n]} of {one}; "
            "expected the order of plane, y, x and feature"
        )
        break  # where one row has moved, others may follow it
    found, counts = np.unique(keys, axis=0, return_counts=True)
    for plane, y, x, number in found[counts > 1].tolist():
        where = kept.array.where(plane, pixel((y, x)))
        yield f"{peaks.table.name}: {where} of {kept.array.channels[number]}: stands twice"


def _world_of_planes(image: ImagePlan, peaks: Peaks, near: Any) -> Iterator[str]:
    """Say which rows are of another place in the world along t or z than their plane."""
    rest = peaks.plane
    for axis in reversed(image.source.outer):
        rest, at = np.divmod(rest, axis.extent)
        yield from near(f"world_{axis.name}", axis.translation + axis.scale * at, 1e-6 * abs(axis.scale))


def compare(kept: Kept, wanted: Detections, peaks: Peaks, again: Again, slack: Wide) -> Iterator[str]:
    """Say what in a window of a map is not as the table has it, as far as the slack of each pixel lets it be told."""
    values = np.where(np.isnan(again.values), -np.inf, again.values)
    around = [greatest_beside(moved, wanted.distance) for moved in (values - slack, values + slack)]
    told = np.zeros(values.shape, bool)
    for row in peaks.inside(again.plane, again.own):
        y, x = (int(p) - i.start for p, i in zip(peaks.at[row], again.seen, strict=True))
        at, where = (int(peaks.number[row]), y, x), kept.array.where(again.plane, pixel(peaks.at[row]))
        told[at] = True
        value, score = values[at], peaks.score[row]
        name = f"{peaks.table.name}: row {peaks.rows[row]}, {where}"
        if value != score and not abs(value - score) <= slack[at]:
            yield f"{name}: the score is {score:g}, and the map's value {value:g}"
        elif value < wanted.threshold - slack[at] or around[0][at] > value + slack[at]:
            yield f"{name}: is no peak"
    clear = (values - slack >= wanted.threshold) & (values - slack > around[1]) & ~told
    for number, y, x in np.argwhere(clear).tolist():
        place = (y + again.seen[0].start, x + again.seen[1].start)
        if not all(i.start <= p < i.stop for p, i in zip(place, again.own, strict=True)):
            continue
        mine = peaks.score[peaks.number == number]
        least = values[number, y, x] - slack[number, y, x]
        if wanted.top is None or len(mine) < wanted.top or least > mine.min():
            where = kept.array.where(again.plane, pixel(place))
            yield f"{peaks.table.name}: {where}: a peak of {kept.array.channels[number]} is not in the table"


def greatest_beside(values: Wide, distance: int) -> Wide:
    """Return for each pixel of (c, y, x) maps the greatest of the others within a distance along both axes, or −inf."""
    left, right = _before(values, distance, -1), _before(values[..., ::-1], distance, -1)[..., ::-1]
    beside = np.maximum(left, right)
    rows = np.maximum(beside, values)
    above, below = _before(rows, distance, -2), _before(rows[:, ::-1], distance, -2)[:, ::-1]
    return np.maximum(beside, np.maximum(above, below))


def _before(values: Wide, distance: int, axis: int) -> Wide:
    """Return for each pixel the greatest of those up to a distance before it along an axis."""
    size = max(1, min(distance, values.shape[axis] - 1))
    moved = np.full_like(values, -np.inf)
    moved.swapaxes(axis, 0)[1:] = values.swapaxes(axis, 0)[:-1]
    filtered: Wide = maximum_filter1d(moved, size, axis, mode="constant", cval=-np.inf, origin=(size - 1) // 2)
    return filtered
