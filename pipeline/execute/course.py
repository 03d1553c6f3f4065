"""The course of a run: image after image is opened, made, shown and let go of, as the executor asks for work."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from pipeline.describe import image_dict
from pipeline.errors import AGAIN, HaloflowError, PlaceError, RunError
from pipeline.execute import decisions, pyramids, tables
from pipeline.execute.feed import Feed, Work
from pipeline.execute.pyramids import Climb
from pipeline.execute.remaining import planned_units, remaining, see_background
from pipeline.execute.report import Report
from pipeline.execute.serial import attempt
from pipeline.execute.task import Done, Failed, Outcome
from pipeline.execute.watching import Watch
from pipeline.kinds import Kinds
from pipeline.planning import ImagePlan, LevelPlan, Plan
from pipeline.storage import output
from pipeline.storage.cache import ChunkCache
from pipeline.storage.identity import digest
from pipeline.storage.images import digest_of
from pipeline.storage.litter import sweep
from pipeline.storage.lock import Lock
from pipeline.storage.place import Place
from pipeline.storage.recorded import Records
from pipeline.storage.records import Segment, Segments
from pipeline.storage.windows import Sights

LAST = 2**63
"""Instead of a block's number, of a failure that is of no block."""

UNREACHABLE = 3
"""Images in a row whose places cannot be reached, after which a run ends: each takes as long as storage is asked."""


@dataclass
class _Open:
    """An image that is being made."""

    number: int
    place: Place
    image: ImagePlan
    left: int
    """Tasks of the image, or of the level that is being made, that have not ended."""
    sights: Sights
    climb: Climb
    failures: list[dict[str, Any]] = field(default_factory=list)


class Course:
    """What happens to the images of a run, of which this process owns the store.

    What it holds does not grow with the number of images, but for names and what failed.

    Parameters
    ----------
    found
        What earlier runs have done; None in a store that is new.
    whole
        Whether an earlier run has done all of it: then no level of a pyramid is made again.
    """

    def __init__(
        self, plan: Plan, lock: Lock, found: Records | None, cluster: str, watch: Watch, *, whole: bool
    ) -> None:
        self.plan = plan
        self.whole = whole
        self.lock = lock
        self.new = found is None
        self.found = found or Records()
        self.cluster = cluster
        self.watch = watch
        self.segments = Segments(plan.store, digest(plan.identity), lock.counter)
        self.journal: Segment = self.segments.begin()
        self.names = list(plan.inputs)
        self.kinds = Kinds(image_dict, self.found.kinds)
        self.open: dict[int, _Open] = {}
        """By the numbers of their work, and of their levels' work."""
        self.levels: dict[int, LevelPlan] = {}
        self.numbers = count(len(self.names))
        self.feed = Feed()
        self.maps: dict[str, Any] | None = {} if len(self.names) <= output.TOGETHER else None
        self.cache = ChunkCache(0)
        self.looked = 0
        self.tasks = self.resumed = self.done = self.failed = self.pixels = self.missing = 0
        self.bytes = [0, 0]
        self.failures: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        """By the number of their image, each with its block."""
        self.unreachable = 0
        self.started, self.clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()

    def work(self, stopped: Callable[[], bool]) -> Feed:
        """Return all that is not recorded, to be gone through once."""
        self.feed = Feed(self._works(stopped))
        return self.feed

    def _works(self, stopped: Callable[[], bool]) -> Iterator[Work]:
        for number, (name, place) in enumerate(zip(self.names, self.plan.places, strict=True)):
            if stopped():
                return
            self.looked = number + 1
            if name in self.found.finished:
                self._pass_over(name)
                continue
            made = self.plan.attempt(number)
            self.unreachable = self.unreachable + 1 if isinstance(made, PlaceError) else 0
            if isinstance(made, PlaceError) and self.unreachable == UNREACHABLE:
                raise RunError(f"{made}; {AGAIN}")
            if isinstance(made, HaloflowError):
                self._fail(number, {"image": str(place), "task": "all", "reason": str(made)})
                self.watch.image_done(str(place), 1)
                self.watch.progress(self._all, self.done, self.failed)
            elif work := self._begin(number, place, made):
                yield work

    def _pass_over(self, name: str) -> None:
        """Count an image that an earlier run has finished."""
        event = self.found.finished[name]
        for counted in ("tasks", "resumed", "done"):
            setattr(self, counted, getattr(self, counted) + event["tasks"])
        self.pixels += event["pixels"]
        self.missing += event["missing"]
        self.watch.image_done(self.plan.inputs[name], 0)
        self.kinds.name(event["kind"], name)
        if self.maps is not None:
            self.maps |= {group: output.shown(self.plan.store, group) for group in event["maps"]}

    def _begin(self, number: int, place: Place, image: ImagePlan) -> Work | None:
        """Make room for an image and note that it is read; return what of it is left to do."""
        source, sights = image.source, Sights()
        output.add(self.plan.store, [kept.array for kept in image.kept], new=self.new)
        if described := self.kinds.add(image):
            self.journal.append({"kind": self.kinds.of(image), "plan": described})
        self.journal.append(
            {
                "image": source.name,
                "path": source.path,
                "digest": source.digest,
                "array": str(source.array).removeprefix(str(place)).strip("/"),
                "units": planned_units(image),
            }
        )
        left = remaining(image, self.found, sights)
        before = len(image.blocks) - len(left)
        self.tasks += len(image.blocks)
        self.resumed += before
        self.done += before
        self.pixels += _pixels(image)
        self.missing += image.missing or 0
        opened = _Open(number, place, image, len(left), sights, Climb(image))
        if not left:
            # What is whole is left as it is.
            (self._end if self.whole else self._climb)(opened)
            return None
        self.open[number] = opened
        return Work(number, image, left)

    def take(self, outcome: Outcome) -> None:
        """Take what a task tells; the last one of an image lets it go on."""
        if self.lock.lost:
            self.lock.check()
        opened, level = self.open[outcome.image], self.levels.get(outcome.image)
        if level is None:
            self._count(opened, outcome)
        elif isinstance(outcome, Failed):
            opened.climb.fail(level, outcome.reason)
        opened.left -= 1
        if not opened.left:
            for number in [n for n, other in self.open.items() if other is opened]:
                del self.open[number]
                self.levels.pop(number, None)
            if opened.failures:
                self._end(opened)
            else:
                self._climb(opened)
        if level is None:
            self.watch.progress(self._all, self.done, self.failed)

    def _count(self, opened: _Open, outcome: Outcome) -> None:
        image = opened.image
        self.watch.take(outcome, _pixels(image) / len(image.blocks))
        if isinstance(outcome, Done):
            self.done += 1
            self.bytes = [self.bytes[0] + outcome.bytes_read, self.bytes[1] + outcome.bytes_written]
            for kept, sight in zip(image.kept, outcome.sights, strict=True):
                opened.sights.add(kept.array, sight)
            return
        self.failed += 1
        where = f"{outcome.block} at {image.where(outcome.block)}"
        told = {"image": image.source.path, "task": where, "reason": outcome.reason}
        opened.failures.append(told)
        self._fail(opened.number, told, outcome.block)

    def _climb(self, opened: _Open) -> None:
        """Make the next level of an image's maps, of a small one here and now; at the top it is done."""
        while plans := opened.climb.next():
            if sum(plan.pixels for plan in plans) > pyramids.SMALL:
                for plan in plans:
                    number = next(self.numbers)
                    self.open[number], self.levels[number] = opened, plan
                    opened.left += len(plan.blocks)
                    self.feed.add(Work(number, plan, plan.blocks))
                return
            for plan in plans:
                for block in plan.blocks:
                    outcome = attempt(plan, opened.number, block, self.cache, self.journal)
                    if isinstance(outcome, Failed):
                        opened.climb.fail(plan, outcome.reason)
        self._end(opened)

    def _end(self, opened: _Open) -> None:
        """Write what viewers should show of an image's maps, and note that it is finished if it is."""
        image = opened.image
        failures = [*opened.climb.failures]
        if _has_changed(image, opened.place):
            failures.append({"image": image.source.path, "task": "all", "reason": "changed while the run read it"})
        for told in failures:
            self._fail(opened.number, told)
        if not self.new:
            sweep(self.plan.store, (folder for kept in image.kept for folder in output.folders(kept.array)))
        if not opened.failures:
            see_background(image, opened.sights)
        for kept in image.kept:
            windows = opened.sights.windows(kept.array)
            output.show(self.plan.store, kept.array, windows)
            if self.maps is not None:
                self.maps[kept.array.group] = output.metadata(kept.array, windows)
        if not (failures or opened.failures):
            self.journal.append(
                {
                    "finished": image.source.name,
                    "kind": self.kinds.of(image),
                    "tasks": len(image.blocks),
                    "pixels": _pixels(image),
                    "missing": image.missing or 0,
                    "maps": [kept.array.group for kept in image.kept],
                }
            )

        self.watch.image_done(image.source.path, len(opened.failures))

    def _fail(self, number: int, told: dict[str, Any], block: int = LAST) -> None:
        self.failures.setdefault(number, []).append((block, told))
        self.watch.failed(**told)

    def end(self) -> Report:
        """Write the tables, and return what has happened."""
        is_whole = self.whole and self.done == self.resumed and not self.failures
        if not (is_whole and tables.are_there(self.plan)):  # what is gone of them is in the records
            failed = {self.names[n] for n, told in self.failures.items() if any(_is_lost(b, one) for b, one in told)}
            by_name = {path: number for number, path in enumerate(self.plan.inputs.values())}
            for told in tables.finish(self.plan, failed):
                self._fail(by_name[told["image"]], told)
        return self._report()

    @property
    def _all(self) -> int:
        """The number of all tasks; those of images that nobody has looked at yet are taken to be as many as others'."""
        return self.tasks * len(self.names) // max(1, self.looked)

    def news(self) -> dict[str, Any]:
        """Return what signs of life tell besides."""
        rate = (self.done - self.resumed) / max(1e-9, time.perf_counter() - self.clock)
        return {"done": self.done, "tasks": self._all, "failed": self.failed, "rate": round(rate, 3)}

    def _report(self) -> Report:
        """Return what has happened."""
        return Report(
            store=str(self.plan.store),
            images=len(self.names),
            tasks=self.tasks,
            done=self.done,
            resumed=self.resumed,
            seconds=round(time.perf_counter() - self.clock, 3),
            pixels=self.pixels,
            bytes_read=self.bytes[0],
            bytes_written=self.bytes[1],
            cluster=self.cluster,
            started=self.started,
            missing_chunks=self.missing,
            failures=tuple(
                told
                for number in sorted(self.failures)
                for _, told in sorted(self.failures[number], key=lambda failure: failure[0])
            ),
            tables=tuple(str(self.plan.store / key) for key in tables.files(self.plan)),
            decided=decisions.read(self.plan),
        )


def _is_lost(block: int, failure: dict[str, Any]) -> bool:
    """Say whether what failed leaves no rows of an image: a task, or all of it."""
    return block != LAST or failure["task"] == "all"


def _pixels(image: ImagePlan) -> int:
    return image.source.planes * image.extents[0][0] * image.extents[0][1]


def _has_changed(image: ImagePlan, place: Place) -> bool:
    try:
        return digest_of(place, image.source.array) != image.source.digest
    except (HaloflowError, OSError):  # it is gone
        return True
