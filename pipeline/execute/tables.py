"""The end of a run for its tables: what the tasks found is read from the records, put in order, and written.

Nothing but records is read, for peaks one row of write units at a time: so a resumed run has no other way than one that
was never stopped. Blocks that were not made, because they see only the fill value, have no peaks, and their sums are
known. Memory holds some bytes for each write unit and task, and of peaks a row of units', or twice the ``top``.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import HaloflowError
from pipeline.execute import decisions
from pipeline.execute.remaining import box_of, counts_of, due
from pipeline.geometry import Interval
from pipeline.kept import Kept
from pipeline.planning import ImagePlan, Plan
from pipeline.sections import Detections, Summaries
from pipeline.storage.findings import TABLES, Findings, by_array, findings, written
from pipeline.storage.identity import digest
from pipeline.storage.place import Place
from pipeline.storage.source import place_of
from pipeline.storage.tablefiles import Noted, is_as_large
from pipeline.tables.columns import Column, detection_columns, summary_columns
from pipeline.tables.formats import FORMATS
from pipeline.tables.formats.base import TOGETHER, Table, Writer
from pipeline.tables.peaks import ROW, Rows, best
from pipeline.tables.sums import Sums, sum_up
from pipeline.tables.watch import Found, Watch, wanted_of

PLACED = np.dtype([("plane", "<i8"), *ROW.descr])
"""A peak and the number of its plane."""


def files(plan: Plan) -> list[str]:
    """Return the keys of a run's tables in its store."""
    detections, summaries = wanted_of(kept.watch for kept in plan.images[0].made)
    names = [f"detections.{detections.format}"] if detections else []
    names += ["summaries.parquet"] if summaries else []
    names += [name] if (name := decisions.file_of(plan)) else []
    return [f"{TABLES}/{name}" for name in names]


def are_there(plan: Plan, noted: Noted) -> bool:
    """Say whether all tables of a run stand in its store, as large as is noted, and that of decisions can be read."""
    return all(is_as_large(plan.store, key, noted) for key in files(plan)) and decisions.can_be_read(plan)


def finish(
    plan: Plan, failed: Collection[str], outer: Sequence[str], since: int, tell: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Write the tables of a run; return what failed, for the report.

    Images of which a task ``failed``, by their names, are left out: the report names them already. Of the axes beside
    y and x ``outer`` are those that any image has, the store was begun with the lock ``since``, and ``tell`` hears
    before each image how many there were.
    """
    if not files(plan):
        return []
    found = by_array(findings(plan.store, digest(plan.identity), since))
    failures = []
    with ExitStack() as stack:
        tables = _Tables(plan, outer, stack)
        attempts = plan.attempts(n for n, name in enumerate(plan.inputs) if name not in failed)
        for number, (name, path) in enumerate(plan.inputs.items()):
            tell(number)
            if name in failed:
                continue
            image = next(attempts)
            if isinstance(image, HaloflowError):  # an earlier run could still read it
                failures.append({"image": path, "task": "tables", "reason": str(image)})
                continue
            order = sorted((kept.place, nth) for nth, kept in enumerate(image.made) if kept.watch)
            looked = [_Looked(plan.store, image, nth, found) for _, nth in order]
            if missing := sum(one.missing for one in looked):
                reason = f"{missing} write units have no record of what was found; go on with --resume"
                failures.append({"image": image.source.path, "task": "tables", "reason": reason})
                continue
            for one in looked:
                tables.add(one)
    return failures


class _Tables:
    """The tables of a run, open for writing as long as a stack of contexts."""

    def __init__(self, plan: Plan, outer: Sequence[str], stack: ExitStack) -> None:
        detections, summaries = wanted_of(kept.watch for kept in plan.images[0].made)
        self.outer = outer

        def opened(name: str, form: str, columns: Sequence[Column], about: Mapping[str, Any]) -> Writer:
            file = stack.enter_context(written(plan.store, f"{name}.{form}"))
            return stack.enter_context(closing(FORMATS[form](file, columns, about)))

        if detections:
            about = {"detections": detections.model_dump(mode="json"), **_on_earth(plan)}
            self.peaks = opened("detections", detections.format, detection_columns(self.outer), about)
        if name := decisions.file_of(plan):
            columns = decisions.columns(self.outer, plan.images[0])
            self.decisions = opened("decisions", name.rpartition(".")[2], columns, {})
        if summaries:
            about = {"summaries": summaries.model_dump(mode="json")}
            self.sums = opened("summaries", "parquet", summary_columns(self.outer, summaries), about)

    def add(self, looked: "_Looked") -> None:
        """Write what was found in one layer's maps of an image."""
        if looked.watch.detections:
            for rows in looked.peaks(looked.watch.detections):
                geo = looked.image.source.geo
                self.peaks.add(looked.told(rows, self.outer), flipped=geo is not None and geo.flipped)
        if looked.watch.summaries:
            self.sums.add(looked.summed(looked.watch.summaries, self.outer))
        if looked.watch.joins:
            self.decisions.add(looked.decided(self.outer))


def _on_earth(plan: Plan) -> dict[str, Any]:
    """Return what is true of all images about where they lie on Earth."""
    if plan.images[0].source.geo is None:
        return {}
    told = [asdict(geo) if (geo := image.source.geo) else {} for image in plan.images]
    return {key: value for key, value in told[0].items() if all(one.get(key) == value for one in told)}


class _Looked:
    """What the tasks found in one layer's maps of an image: each write unit's part is taken from one record."""

    def __init__(self, store: Place, image: ImagePlan, nth: int, found: Mapping[str, Findings]) -> None:
        self.store, self.image, self.nth = store, image, nth
        self.kept: Kept = image.made[nth]
        self.array = self.kept.array
        path = f"{self.array.group}/0"
        self.found = found.get(path, Findings(path, len(self.array.axes)))
        self.watch = self.kept.watch or Watch()

    @cached_property
    def which(self) -> NDArray[np.int64]:
        """For each write unit (t, z, y, x) the number of the record that its part is taken from; −1 for none."""
        which = np.full(counts_of(self.kept), -1, np.int64)
        for number, finding in enumerate(self.found):
            part = which[box_of(self.kept, finding.units)]
            part[part < 0] = number
        return which

    @property
    def missing(self) -> int:
        """How many write units that tasks make have no record."""
        return int((due(self.image)[self.nth] & (self.which < 0)).sum())

    def peaks(self, wanted: Detections) -> Iterator[Rows]:
        """Give the peaks, as `PLACED`, by plane, y, x and map, some at a time; of each map the ``top``, if it is so."""
        if wanted.top is None:
            for rows in self._all_peaks():
                yield from (rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER))
            return
        pools = [np.empty(0, PLACED) for _ in self.array.channels]
        for rows in self._all_peaks():
            for number in np.unique(rows["map"]):
                pools[number] = best(np.concatenate([pools[number], rows[rows["map"] == number]]), wanted.top)
        rows = np.concatenate(pools)
        yield rows[np.lexsort((rows["map"], rows["x"], rows["y"], rows["plane"]))]

    def _all_peaks(self) -> Iterator[Rows]:
        """Give the peaks of one row of write units after another, in order."""
        height, width = self.array.unit
        for plane in range(self.array.planes):
            which = self.which[place_of(plane, self.array.outer)]
            loaded: dict[int, Rows] = {}
            for line, numbers in enumerate(which):
                parts = [np.empty(0, PLACED)]
                several = np.unique(numbers[numbers >= 0]).tolist()
                # A task's block may go over many rows of units: what the last one had is not read again.
                loaded = {n: loaded[n] if n in loaded else self._load(n).rows for n in several}
                for number, found in loaded.items():
                    rows = found[found["y"] // height == line]
                    rows = rows[numbers[rows["x"] // width] == number]
                    placed = np.empty(len(rows), PLACED)
                    placed["plane"] = plane
                    for name in ROW.names or ():
                        placed[name] = rows[name]
                    parts.append(placed)
                rows = np.concatenate(parts)
                yield rows[np.lexsort((rows["map"], rows["x"], rows["y"]))]

    def told(self, rows: Rows, outer: Sequence[str]) -> Table:
        """Return peaks as rows of their table."""
        (y, world_y), (x, world_x) = self._places(rows)
        planes: Table = {name: [] for axis in outer for name in (axis, f"world_{axis}")}
        for plane in rows["plane"].tolist():
            for name, value in self._plane(plane, outer).items():
                planes[name].append(value)
        return {
            "image": [self.array.image] * len(rows),
            **planes,
            "feature": [self.array.channels[number] for number in rows["map"].tolist()],
            "score": rows["score"].tolist(),
            "y": y.tolist(),
            "x": x.tolist(),
            "world_y": world_y.tolist(),
            "world_x": world_x.tolist(),
            "map_y": rows["y"].tolist(),
            "map_x": rows["x"].tolist(),
        }

    def summed(self, wanted: Summaries, outer: Sequence[str]) -> Table:
        """Return what the maps sum up to as rows of their table, by plane and map."""
        columns = [column.name for column in summary_columns(outer, wanted)]
        table: Table = {name: [] for name in columns}
        for plane, sums in enumerate(self._sums(wanted)):
            for feature, one in zip(self.array.channels, sums, strict=True):
                row = {"image": self.array.image, "layer": self.array.layer, "feature": feature}
                row |= {**self._plane(plane, outer), **self._row(one)}
                for name in columns:
                    table[name].append(row[name])
        return table

    def decided(self, outer: Sequence[str]) -> Table:
        """Return what is decided of each plane as rows of the table of decisions."""
        planes = [self._plane(plane, outer) for plane in range(self.array.planes)]
        places = [{axis: plane[axis] for axis in outer} for plane in planes]
        return decisions.decide(self.image, self._sums(self.watch.sums or Summaries()), places)

    def _row(self, sums: Sums) -> dict[str, Any]:
        row: dict[str, Any] = {
            "pixels": sums.pixels,
            "nan": sums.missing,
            "mean": sums.mean,
            "std": sums.std,
            "max": sums.largest[0] if sums.largest else None,
            "over": sums.over / sums.numbers if sums.numbers else None,
            "histogram": list(sums.bins),
            **dict.fromkeys(("max_y", "max_x", "max_world_y", "max_world_x")),
        }
        if sums.largest:
            pixel = np.zeros(1, ROW)
            pixel["y"], pixel["x"] = sums.largest[1:]
            for axis, (place, world) in zip("yx", self._places(pixel), strict=True):
                row |= {f"max_{axis}": place.item(), f"max_world_{axis}": world.item()}
        return row

    def _sums(self, wanted: Summaries) -> list[list[Sums]]:
        """Return for each plane what each map sums up to."""
        nothing = Sums()
        planes = [[nothing for _ in self.array.channels] for _ in range(self.array.planes)]
        numbers = self.which.reshape(self.array.planes, *self.array.levels[0].counts)
        for number, finding in enumerate(self.found):
            box = box_of(self.kept, finding.units)
            first, plane = dict(zip(self.array.axes, finding.units.first, strict=True)), 0
            for axis in self.array.outer:
                plane = plane * axis.extent + first[axis.name]
            for taken, unit in zip((numbers[plane][box[-2:]] == number).ravel(), self._load(number).parts, strict=True):
                if taken:
                    planes[plane] = [a + b for a, b in zip(planes[plane], unit, strict=True)]
        for plane, empty in enumerate(numbers < 0):
            if empty.any():
                planes[plane] = [a + b for a, b in zip(planes[plane], self._empty(wanted, empty), strict=True)]
        return planes

    def _empty(self, wanted: Summaries, empty: NDArray[np.bool_]) -> list[Sums]:
        """Return what the write units sum up to that nothing was written of: each map has one value there."""
        places = [(int(y), int(x)) for y, x in np.argwhere(empty)]
        level = self.array.levels[0]
        count = 0
        for place in places:
            y, x = level.region(place)
            count += len(y) * len(x)
        one = tuple(Interval(i.start, i.start + 1) for i in level.region(places[0]))
        values = self.image.background[self.nth]
        return [sum_up(wanted, np.full((1, 1), v, np.float32), one, one).times(count) for v in values]

    def _load(self, number: int) -> Found:
        return Found.unpack(self.found[number].load(self.store))

    def _plane(self, plane: int, outer: Sequence[str]) -> dict[str, Any]:
        """Return where a plane is along each outer axis: its number in the input's array, and in the world."""
        told: dict[str, Any] = {name: None for axis in outer for name in (axis, f"world_{axis}")}
        for axis, at in zip(self.array.outer, place_of(plane, self.array.outer), strict=True):
            told |= {axis.name: axis.first + at, f"world_{axis.name}": axis.translation + axis.scale * at}
        return told

    def _places(self, rows: Rows) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return for y and x where peaks lie in the input's array, and in the world: in the middle of their windows.

        What the edge cuts off a window does not count, so that they lie in the image.
        """
        image, found = self.image, []
        for axis, (name, window) in enumerate(zip("yx", image.stack.window(self.kept.place), strict=True)):
            at = rows[name] + rows[f"d{name}"]
            cut = image.stack.cut(self.kept.place, axis, rows[name], image.extents)
            place = image.source.offset[axis] + at * window.stride + (window.span - 1) / 2 - window.pad_lo - cut
            world = self.array.translation[axis] + self.array.scale[axis] * (at - cut / window.stride)
            found.append((place, world))
        return found
