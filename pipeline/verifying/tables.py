"""Verify tables: read them as a run has left them, and hold their rows against the images that it was of."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import HaloflowError, OutputError
from pipeline.execute import decisions
from pipeline.geometry import Interval, Region
from pipeline.planning import ImagePlan, Plan
from pipeline.storage.findings import TABLES
from pipeline.storage.place import Place
from pipeline.storage.source import place_of
from pipeline.storage.target import recorded
from pipeline.tables.columns import Column, detection_columns, summary_columns
from pipeline.tables.formats import FORMATS
from pipeline.tables.formats.base import Table
from pipeline.tables.watch import wanted_of

FEW = 5
"""Rows of a column that are named as wrong, before the others are counted."""


@dataclass(frozen=True)
class Rows:
    """A table as it is read: its file's name, the values of each column, and what it says of all of them."""

    name: str
    columns: Table
    about: Mapping[str, Any]

    @cached_property
    def of_image(self) -> Mapping[str, list[int]]:
        """The numbers of the rows of each image, by its name."""
        found: dict[str, list[int]] = {}
        for number, image in enumerate(self.columns["image"]):
            found.setdefault(image, []).append(number)
        return found

    def column(self, name: str, rows: Sequence[int], kind: type[Any]) -> NDArray[Any]:
        """Return a column of some rows; what is none as NaN, or as −1 where numbers are whole."""
        none = -1 if kind is np.int64 else np.nan
        values = self.columns[name]
        return np.array([none if values[n] is None else values[n] for n in rows], kind)

    def wrong(
        self, column: str, rows: Sequence[int], expected: Sequence[Any], got: Sequence[Any], off: NDArray[np.bool_]
    ) -> Iterator[str]:
        """Say in which of some rows a column is off, and what it should be."""
        numbers = np.flatnonzero(off).tolist()
        for n in numbers[:FEW]:
            yield f"{self.name}: row {rows[n]}, column {column}: expected {_told(expected[n])}, got {_told(got[n])}"
        if len(numbers) > FEW:
            yield f"{self.name}: column {column}: {len(numbers) - FEW} more rows are wrong"

    def unlike(self, column: str, rows: Sequence[int], expected: Sequence[Any]) -> Iterator[str]:
        """Say in which of some rows a column is anything else than what it should be."""
        got = [self.columns[column][n] for n in rows]
        off = np.array([a != b for a, b in zip(expected, got, strict=True)], bool)
        yield from self.wrong(column, rows, expected, got, off)


def _told(value: Any) -> str:
    if value is None:
        return "none"
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Tables:
    """The tables of a run, None for one that it does not make."""

    detections: Rows | None
    summaries: Rows | None
    decisions: Rows | None

    @property
    def all(self) -> tuple[Rows, ...]:
        """Those that it makes."""
        return tuple(rows for rows in (self.detections, self.summaries, self.decisions) if rows)


def read(plan: Plan) -> Tables:
    """Return the tables of a run.

    Raises `OutputError` where one is missing, lacks a column, or cannot be read, and where they were asked for by
    another config.
    """
    first = plan.images[0]
    outer = [axis.name for axis in first.source.outer]
    detections, summaries = wanted_of(kept.watch for kept in first.made)
    decided = decisions.file_of(plan)
    found = Tables(
        _read(plan, f"detections.{detections.format}", detection_columns(outer)) if detections else None,
        _read(plan, "summaries.parquet", summary_columns(outer, summaries)) if summaries else None,
        _read(plan, decided, decisions.columns(outer, first)) if decided else None,
    )
    before, now = ((recorded(plan.store) or {}).get("config") or {}).get("output") or {}, plan.config["output"]
    for name in ("detections", "summaries", "decisions"):
        for path, old, new in _changes(f"output.{name}", before.get(name), now[name]):
            raise OutputError(
                f"{path}: {plan.store} was made with {_told(old)}, and the config has {_told(new)}; verify it with the "
                "config that it was made with, or make it anew with 'haloflow run --overwrite'"
            )
    return found


def _changes(path: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Give the keys that what is known of before has with other values now."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in before:
            yield from _changes(f"{path}.{key}", before[key], now.get(key))
    elif before != now:
        yield path, before, now


def check_settings(plan: Plan, rows: Rows) -> Iterator[str]:
    """Say where a table says of itself that other things were asked for than the config asks for."""
    for name in rows.about.keys() & {"detections", "summaries"}:
        for path, got, expected in _changes(f"output.{name}", rows.about[name], plan.config["output"][name]):
            yield f"{rows.name}: was written for {path} {_told(got)}; expected {_told(expected)}"


def _read(plan: Plan, name: str, columns: Sequence[Column]) -> Rows:
    path = plan.store / TABLES / name
    data = plan.store.read(f"{TABLES}/{name}")
    if data is None:
        raise OutputError(f"{path}: there is no such table; make it with 'haloflow run'")
    try:
        form = FORMATS[name.rpartition(".")[2]]
        table, about = form.read(io.BytesIO(data)), form.about_of(io.BytesIO(data))
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes its reader raise
        raise OutputError(f"{path}: cannot be read: {error}") from None
    if not any(table.values()):  # of no rows some formats have no columns
        return Rows(name, {column.name: [] for column in columns}, about)
    if lacking := [column.name for column in columns if column.name not in table]:
        raise OutputError(
            f"{path}: has no column {lacking[0]}: it is of a run that differs; make it with 'haloflow run --overwrite'"
        )
    return Rows(name, table, about)


def failed(store: Place) -> frozenset[str]:
    """Return the paths of the images of which the run has left something undone, as its report has it."""
    report = (recorded(store) or {}).get("report") or {}
    return frozenset(failure["image"] for failure in report.get("failures", ()))


def planes_of(image: ImagePlan) -> Iterator[dict[str, int]]:
    """Give where each plane of an image is along its outer axes, as tables have it."""
    outer = image.source.outer
    for plane in range(image.source.planes):
        yield {axis.name: axis.first + at for axis, at in zip(outer, place_of(plane, outer), strict=True)}


def pixel(at: Iterable[int]) -> Region:
    """Return a pixel as a region."""
    return tuple(Interval(int(p), int(p) + 1) for p in at)


def check_images(rows: Rows, images: Sequence[str]) -> Iterator[str]:
    """Say which rows of a table are of no image of the run, and which are not in the images' order."""
    place = {image: number for number, image in enumerate(images)}
    for image, numbers in rows.of_image.items():
        if image not in place:
            more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
            yield f"{rows.name}: row {numbers[0]}{more}, column image: {_told(image)} is no image of the run"
    latest = -1
    for number, image in enumerate(rows.columns["image"]):
        if place.get(image, latest) < latest:
            yield f"{rows.name}: row {number}, column image: {image} stands after {images[latest]}; expected before it"
            return
        latest = place.get(image, latest)
