"""Verify a store: recompute random windows, borders and corners among them, from the raw input in float64."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.api import plan as make_plan
from pipeline.describe import times
from pipeline.errors import HaloflowError, OutputError, counted
from pipeline.geometry import Region, whole
from pipeline.job import Job
from pipeline.kept import Kept
from pipeline.kernels import TOLERANCE
from pipeline.planning import ImagePlan
from pipeline.storage.images import stem
from pipeline.storage.maps import MapArray
from pipeline.storage.place import Place
from pipeline.tables.watch import Watch
from pipeline.verifying import decisions, detections, levels, metadata, summaries, tables
from pipeline.verifying.again import Again, deviation, is_small, make, places, scales_of, slack_of
from pipeline.verifying.reference import Wide
from pipeline.verifying.tables import Rows, Tables

NO_LIMIT = 2**62
"""Verifying holds a few windows, however much a run was allowed."""

SOME = 9
"""Windows of each further level of a pyramid: the corners, the borders, and a random one."""

SHOWN = 20
"""Findings on tables, and things that were not checked, that are told at the most."""


@dataclass(frozen=True)
class Verification:
    """How far a store is off.

    ``worst`` is the largest deviation, beyond what a stored type narrower than float32 rounds, as a part of the map's
    scale (the greatest absolute value in windows like it, or `CANCELLED` of what its sums pass through); ``misplaced``
    counts pixels that are NaN or infinite on one side only, ``off`` those of a pyramid's further levels that are not
    what the level before makes; ``maps`` counts the kept ones that were read, ``unreadable`` names the windows that
    could not be; ``tables`` says what in the tables is not as the maps are; ``checked`` and ``unchecked`` say what of
    them was looked at and what was not; ``metadata`` names the groups whose metadata are not what a run writes;
    ``config`` says in what the config that made the store differs from the one that it is verified with.
    """

    store: str
    windows: int
    pixels: int
    worst: float
    where: str
    misplaced: int
    off: int = 0
    maps: int = 0
    unreadable: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether every pixel is within the tolerance, and all else is as it should be."""
        wrong = self.misplaced or self.off or self.unreadable or self.tables or self.metadata
        return self.worst <= self.tolerance and not wrong

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        lists = ("unreadable", "tables", "checked", "unchecked", "metadata", "config")
        return {**asdict(self), **{name: list(getattr(self, name)) for name in lists}, "passed": self.passed}

    def __str__(self) -> str:
        verdict = "verified" if self.passed else "NOT the same"
        odd = f"; {self.misplaced} pixels are NaN or infinite on one side only" if self.misplaced else ""
        odd += f"; {self.off} pixels of further levels are not what the level before makes" if self.off else ""
        against = (
            f"; the largest deviation is {self.worst:.2g} of the map's scale (tolerance {self.tolerance:g}), in "
            f"{self.where}{odd}"
            if self.maps
            else " for the tables; no maps are kept"
        )
        made = f"{counted(self.windows, 'window')}, {counted(self.pixels, 'pixel')} recomputed in float64"
        lines = [f"{verdict}: {self.store}: {made}{against}"]
        lines += [f"cannot be read: {window}" for window in self.unreadable]
        lines += _shown("made with another config", () if self.passed else self.config)
        lines += _shown("not as written", self.metadata)
        lines += _shown("not as the maps are", self.tables)
        lines += [f"checked: {table}" for table in self.checked]
        return "\n".join([*lines, *_shown("not checked", self.unchecked)])


def _shown(about: str, told: Sequence[str]) -> list[str]:
    more = len(told) - SHOWN
    return [*(f"{about}: {one}" for one in told[:SHOWN]), *([f"… and {more} more"] if more > 0 else [])]


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
        Where the store, one of its maps or tables is missing, or has another shape, type or columns.
    """
    plan = make_plan(job, memory=NO_LIMIT)
    if not plan.store.exists():
        raise OutputError(f"output.store: there is no {plan.store}; make it with 'haloflow run'")
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    found, changed = _Found(), metadata.other_config(plan)
    made, failed = tables.read(plan), tables.failed(plan.store)
    for image in plan.images:
        if image.source.path in failed and not any(image.source.name in rows.of_image for rows in made.all):
            found.unchecked += (
                [f"tables have no rows of {image.source.name}, of which the run failed"] if made.all else []
            )
        else:
            _check_tables(image, made, windows, draw, found)
        found.metadata += metadata.faults(plan.store, image)
        for kept in image.kept:
            try:
                _check_maps(plan.store, image, kept, windows, draw, found)
            except OutputError as error:
                raise OutputError("\n".join([str(error), *_shown("made with another config", changed)])) from None
    found.unchecked += [f"what is of {stem(path)}, which cannot be run: {reason}" for path, reason in plan.bad]
    for rows in made.all:
        found.tables += [*tables.check_settings(plan, rows), *tables.check_images(rows, [*plan.inputs])]
        again = f"; the scores of {counted(found.decided, 'plane')} made again" if rows is made.decisions else ""
        found.checked.append(f"{rows.name}: {counted(rows.count, 'row')}{again}")
    return Verification(
        str(plan.store),
        found.windows,
        found.pixels,
        found.worst,
        found.where,
        found.misplaced,
        found.off,
        sum(len(image.kept) for image in plan.images),
        tuple(found.unreadable),
        tuple(found.tables),
        tuple(found.checked),
        tuple(found.unchecked),
        tuple(found.metadata),
        tuple(changed),
    )


@dataclass
class _Found:
    """What has been found so far: see `Verification`."""

    windows: int = 0
    pixels: int = 0
    worst: float = 0.0
    where: str = "every window"
    misplaced: int = 0
    off: int = 0
    unreadable: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    decided: int = 0
    """Planes whose scores were made again."""

    def count(self, made: Sequence[Again]) -> None:
        """Count windows that were made again."""
        self.windows += len(made)
        self.pixels += sum(one.values.size for one in made)


def _check_maps(store: Place, image: ImagePlan, kept: Kept, windows: int, draw: random.Random, found: _Found) -> None:
    """Hold a stored map, and the levels of its pyramid, against windows that are made again."""
    arrays = [_open(store, kept.array, number) for number in range(len(kept.array.levels))]
    checks: list[tuple[str, Again, Wide]] = []
    for plane, region in places(kept.array, kept.array.extents, windows, draw):
        where = f"{kept.array.group} {kept.array.where(plane, region)}"
        try:
            stored = kept.array.encoding.decode(_cut(kept.array, arrays, 0, plane, region))
            checks.append((where, make(image, kept, plane, region), stored))
        except Exception as error:  # noqa: BLE001 - whatever a damaged chunk makes a codec raise
            found.unreadable.append(f"{where}: {error}")
    some = partial(places, kept.array, count=SOME, draw=draw)
    for name, told in levels.compare(kept.array, partial(_cut, kept.array, arrays), some):
        if isinstance(told, str):
            found.unreadable.append(f"{name}: {told}")
        else:
            found.windows, found.pixels, found.off = found.windows + 1, found.pixels + told.pixels, found.off + told.off
    made = [again for _, again, _ in checks]
    found.count(made)
    for (where, again, stored), scale in zip(checks, scales_of(made), strict=True):
        off, odd = deviation(kept, again, stored)
        found.misplaced += odd
        if off / (scale or 1.0) > found.worst:
            found.worst, found.where = off / (scale or 1.0), where


def _check_tables(image: ImagePlan, made: Tables, windows: int, draw: random.Random, found: _Found) -> None:
    """Hold the tables against windows of the maps that they are of, made again."""
    if made.summaries:
        found.tables += summaries.check(image, made.summaries)
    if made.decisions:
        found.tables += decisions.check(image, made.decisions)
    for kept in image.made:
        watch = kept.watch or Watch()
        wanted, summed = watch.detections, watch.summaries
        if watch.joins and made.decisions:
            _check_scores(image, kept, made.decisions, windows, draw, found)
        if not (wanted or summed):
            continue
        peaks = detections.Peaks.of(image, kept, made.detections) if wanted and made.detections else None
        again = _again(image, kept, peaks, windows, draw, found)
        slacks = slack_of(again)
        if wanted and peaks:
            found.tables += [*peaks.wrong, *detections.check(image, kept, wanted, peaks)]
            for one, slack in zip(again, slacks, strict=True):
                found.tables += detections.compare(kept, wanted, peaks, one, slack)
        if summed and made.summaries:
            found.tables += summaries.compare(image, kept, summed, made.summaries, again, slacks)


def _check_scores(image: ImagePlan, kept: Kept, rows: Rows, windows: int, draw: random.Random, found: _Found) -> None:
    """Hold the scores of some planes against what the layers make of them again."""
    planes, left = decisions.choose(image, kept, windows, draw)
    found.unchecked += left
    try:
        made = [decisions.make_again(image, kept, plane) for plane in planes]
    except HaloflowError as error:
        found.unreadable.append(f"{rows.name}: {error}")
        return
    found.count(made)
    found.decided += len(made)
    found.tables += decisions.compare(image, rows, made)


def _again(
    image: ImagePlan,
    kept: Kept,
    peaks: detections.Peaks | None,
    windows: int,
    draw: random.Random,
    found: _Found,
) -> list[Again]:
    """Make windows of a map again, some of them around rows of its table."""
    extents = kept.array.extents
    chosen = list(places(kept.array, extents, windows, draw))
    if is_small(image, kept):
        chosen.append((draw.randrange(kept.array.planes), whole(extents)))
    if peaks:
        some = draw.sample(range(len(peaks.rows)), min(windows, len(peaks.rows)))
        chosen += [(int(peaks.plane[row]), tables.pixel(peaks.at[row])) for row in some]
    made = []
    for plane, own in chosen:
        try:
            made.append(make(image, kept, plane, own, (kept.watch.halo if kept.watch else ()) or (0, 0)))
        except HaloflowError as error:
            found.unreadable.append(f"{kept.array.group} {kept.array.where(plane, own)}: {error}")
    found.count(made)
    return made


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
