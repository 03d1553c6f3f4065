"""Verify tables: read them as a run has left them, and hold their rows against the images that it was of."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
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
from pipeline.tables.columns import Column, Kind, detection_columns, summary_columns
from pipeline.tables.formats import FORMATS
from pipeline.tables.formats.base import Table
from pipeline.tables.watch import wanted_of

OUTER = ("t", "z")
"""Axes that only the tables of some images have columns of."""

REMEDY = "'haloflow run --resume' makes it again from the records"
"""What to do about a table that is not there, after what is wrong with it."""

FEW = 5
"""Rows of a column that are named as wrong, before the others are counted."""


@dataclass(frozen=True)
class Rows:
    """A table as it is read: its file's name, and what it says of all rows.

    ``columns`` are arrays: of numbers float64 (whole ones, too), NaN for none; of text and lists those, once each.
    """

    name: str
    columns: Mapping[str, NDArray[Any]]
    kinds: Mapping[str, Kind]
    about: Mapping[str, Any]

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.columns["image"])

    @cached_property
    def runs(self) -> list[tuple[Any, range]]:
        """The images in their order, each with its rows; one whose rows do not stand together comes again."""
        images = self.columns["image"]
        cuts = np.flatnonzero(images[1:] != images[:-1]) + 1
        ends = [*cuts.tolist(), len(images)] if len(images) else []
        return [(images[a], range(a, b)) for a, b in pairwise([0, *ends])]

    @cached_property
    def of_image(self) -> Mapping[str, NDArray[np.int64]]:
        """The numbers of the rows of each image, by its name."""
        found: dict[str, list[range]] = {}
        for image, rows in self.runs:
            found.setdefault(image, []).append(rows)
        return {image: np.concatenate([np.arange(r.start, r.stop) for r in rows]) for image, rows in found.items()}

    def of(self, image: ImagePlan) -> NDArray[np.int64]:
        """Return the numbers of the rows of an image."""
        return self.of_image.get(image.source.name, np.empty(0, np.int64))

    def value(self, column: str, row: int) -> Any:
        """Return what stands in a row of a column; None for whole numbers that are none."""
        found = self.columns[column][row]
        if self.kinds[column] == "whole":
            return None if np.isnan(found) else int(found) if found == int(found) else float(found)
        return float(found) if isinstance(found, np.floating) else found

    def wrong(
        self, column: str, rows: NDArray[np.int64], off: NDArray[np.bool_], expected: Callable[[int], Any]
    ) -> Iterator[str]:
        """Say in which of some rows a column is off, and what it should be in the n-th of these."""
        numbers = np.flatnonzero(off).tolist()
        for n in numbers[:FEW]:
            got = _told(self.value(column, rows[n]))
            yield f"{self.name}: row {rows[n]}, column {column}: expected {_told(expected(n))}, got {got}"
        if len(numbers) > FEW:
            yield f"{self.name}: column {column}: {len(numbers) - FEW} more rows are wrong"

    def unlike(self, column: str, rows: NDArray[np.int64], expected: Sequence[Any]) -> Iterator[str]:
        """Say in which of some rows a column is anything else than what it should be."""
        off = [self.value(column, row) != one for row, one in zip(rows.tolist(), expected, strict=True)]
        yield from self.wrong(column, rows, np.array(off, bool), lambda n: expected[n])


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
    record = recorded(plan.store)
    if record is None:
        raise OutputError(
            f"output.store: {plan.store} says of no run that has made anything: one has just begun it, or what it says "
            f"is damaged; see 'haloflow status {plan.store}'"
        )
    first = plan.images[0]
    detections, summaries = wanted_of(kept.watch for kept in first.made)
    decided = decisions.file_of(plan)
    found = Tables(
        _read(plan, f"detections.{detections.format}", detection_columns(OUTER)) if detections else None,
        _read(plan, "summaries.parquet", summary_columns(OUTER, summaries)) if summaries else None,
        _read(plan, decided, decisions.columns(OUTER, first)) if decided else None,
    )
    before, now = (record.get("config") or {}).get("output") or {}, plan.config["output"]
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
        raise OutputError(f"{path}: there is no such table; {REMEDY}")
    try:
        form = FORMATS[name.rpartition(".")[2]]
        rows = _joined(name, columns, form.parts(io.BytesIO(data)), form.about_of(io.BytesIO(data)))
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes its reader raise
        raise OutputError(f"{path}: cannot be read: {error}; remove it, and {REMEDY}") from None
    if lacking := [column.name for column in columns if column.name not in rows.columns]:
        raise OutputError(
            f"{path}: has no column {lacking[0]}: it is of a run that differs; make it with 'haloflow run --overwrite'"
        )
    return rows


def _joined(name: str, columns: Sequence[Column], parts: Iterable[Table], about: Mapping[str, Any]) -> Rows:
    """Return parts of a table as one; of no rows some formats have no columns."""
    texts: dict[Any, Any] = {}
    found: dict[str, list[NDArray[Any]]] = {}
    for part in parts:
        for column in (column for column in columns if column.name in part):
            values: Any = part[column.name]
            if column.kind == "text":  # the same few names again and again
                values = [texts.setdefault(value, value) for value in values]
            filled = np.empty(len(values), np.float64 if column.kind in ("whole", "float32", "float64") else object)
            filled[:] = values  # as NaN what is None
            found.setdefault(column.name, []).append(filled)
    if not any(map(len, chain.from_iterable(found.values()))):
        found = {column.name: [np.empty(0, object)] for column in columns}
    joined = {column: np.concatenate(values) for column, values in found.items()}
    count = len(next(iter(joined.values())))
    outer = {column.name for column in columns} & {*OUTER, *(f"world_{axis}" for axis in OUTER)}
    joined |= {key: np.full(count, np.nan) for key in outer - joined.keys()}
    return Rows(name, joined, {column.name: column.kind for column in columns}, about)


def failed(store: Place) -> frozenset[str]:
    """Return the paths of the images of which the run has left something undone, as its report has it."""
    report = (recorded(store) or {}).get("report")
    return (
        frozenset(failure["image"] for failure in report.get("failures", ()))
        if isinstance(report, dict)
        else frozenset()
    )


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
    latest = -1
    for image, numbers in rows.runs:
        if image not in place:
            more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
            yield f"{rows.name}: row {numbers[0]}{more}, column image: {_told(image)} is no image of the run"
        elif place[image] < latest:
            before = images[latest]
            yield f"{rows.name}: row {numbers[0]}, column image: {image} stands after {before}; expected before it"
            return
        else:
            latest = place[image]
