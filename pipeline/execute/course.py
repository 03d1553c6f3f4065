"""The course of a run: image after image is opened, made, shown and let go of, as the executor asks for work."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from pipeline.describe import image_dict
from pipeline.errors import AGAIN, HaloflowError, PlaceError, RunError, writing_to
from pipeline.execute import decisions, pyramids, tables
from pipeline.execute.account import Account
from pipeline.execute.feed import Feed, Work
from pipeline.execute.pyramids import Climb
from pipeline.execute.remaining import planned_units, remaining, see_background
from pipeline.execute.report import Report
from pipeline.execute.serial import attempt
from pipeline.execute.task import Failed, Outcome
from pipeline.kinds import Kinds
from pipeline.planning import ImagePlan, LevelPlan, Plan
from pipeline.storage import output
from pipeline.storage.ahead import TOGETHER, ask
from pipeline.storage.cache import ChunkCache
from pipeline.storage.identity import digest
from pipeline.storage.images import digest_of
from pipeline.storage.litter import sweep
from pipeline.storage.lock import Lock
from pipeline.storage.place import Place
from pipeline.storage.recorded import Records, begun_with
from pipeline.storage.records import Segment, Segments
from pipeline.storage.tablefiles import Noted, faults, note, noted_in
from pipeline.storage.windows import Sights

UNREACHABLE = 3
"""Images in a row whose places cannot be reached, after which a run ends: each takes as long as storage is asked."""


@dataclass
class _Open:
    """An image that is being made."""

    place: Place
    image: ImagePlan
    left: int
    """Tasks of the image, or of the level that is being made, that have not ended."""
    sights: Sights
    climb: Climb
    failed: int = 0
    """Of its tasks."""


class Course:
    """What happens to the images of a run, of which this process owns the store.

    What it holds does not grow with the number of images, but for names and what failed.

    Parameters
    ----------
    found
        What earlier runs have done; None in a store that is new.
    before
        What the store says of the run that has begun it; None in a store that is new.
    checksums
        Whether tables count only where they are as they were written.
    """

    def __init__(
        self,
        plan: Plan,
        lock: Lock,
        found: Records | None,
        account: Account,
        before: Mapping[str, Any] | None,
        *,
        checksums: bool = False,
    ) -> None:
        self.plan = plan
        self.noted: Noted = noted_in(before or {})
        """What is noted of the tables that earlier runs have written."""
        self.checksums = checksums
        self.whole = before is not None and before.get("complete") is True
        """Whether an earlier run has done all of it: no level of a pyramid is made again that has all its records."""
        self.since = begun_with(before) if before is not None else lock.counter
        """The number of the lock with which the store was begun."""
        self.lock = lock
        self.new = found is None
        self.found = found or Records()
        self.account = account
        self.segments = Segments(plan.store, digest(plan.identity), lock.counter)
        self.journal: Segment = self.segments.begin()
        self.kinds = Kinds(image_dict, self.found.kinds)
        self.open: dict[int, _Open] = {}
        """By the numbers of their work, and of their levels' work."""
        self.levels: dict[int, LevelPlan] = {}
        self.ending = deque[tuple[_Open, Future[bool]]]()
        """Images of which all is made, and whether they have changed meanwhile."""
        self.numbers = count(len(plan.inputs))
        self.feed = Feed()
        self.maps: dict[str, Any] | None = {} if len(plan.inputs) <= output.TOGETHER else None
        self.cache = ChunkCache(0)
        self.unreachable = 0

    def work(self, stopped: Callable[[], bool]) -> Feed:
        """Return all that is not recorded, to be gone through once."""
        self.feed = Feed(self._works(stopped))
        return self.feed

    def _works(self, stopped: Callable[[], bool]) -> Iterator[Work | None]:
        found = self.found.finished
        attempts = self.plan.attempts(n for n, name in enumerate(self.plan.inputs) if name not in found)
        for number, (name, place) in enumerate(zip(self.plan.inputs, self.plan.places, strict=True)):
            if stopped():
                return
            if name in found:
                self._pass_over(name)
                yield None
                continue
            made = next(attempts)
            self.unreachable = self.unreachable + 1 if isinstance(made, PlaceError) else 0
            if isinstance(made, PlaceError) and self.unreachable == UNREACHABLE:
                raise RunError(f"{made}; {AGAIN}")
            if isinstance(made, HaloflowError):
                self.account.refuse(str(place), str(made))
                yield None
            else:
                yield self._begin(number, place, made)

    def _pass_over(self, name: str) -> None:
        """Leave an image as it is that an earlier run has finished."""
        event = self.found.finished[name]
        self.account.pass_over(self.plan.inputs[name], event)
        self.kinds.name(event["kind"], name)
        if self.maps is not None:
            self.maps |= {group: output.shown(self.plan.store, group) for group in event["maps"]}

    def _begin(self, number: int, place: Place, image: ImagePlan) -> Work | None:
        """Make room for an image and note that it is read; return what of it is left to do."""
        source, sights, units = image.source, Sights(), planned_units(image)
        with writing_to(self.plan.store):
            self.journal.check()  # before anything is made in a store that may have been removed
            output.add(self.plan.store, [kept.array for kept in image.kept], new=self.new)
            if described := self.kinds.add(image):
                self.journal.append({"kind": self.kinds.of(image), "plan": described})
            self.journal.append(
                {
                    "image": source.name,
                    "path": source.path,
                    "digest": source.digest,
                    "array": str(source.array).removeprefix(str(place)).strip("/"),
                    "units": units,
                }
            )
        untouched = self.whole and self.found.has_all(units)
        left = remaining(image, self.found, sights)
        self.account.begin(image, len(image.blocks) - len(left))
        opened = _Open(place, image, len(left), sights, Climb(image))
        if not left:
            # What is whole is left as it is; it is not where records of its levels are gone.
            (self._end if untouched else self._climb)(opened)
            return None
        self.open[number] = opened
        return Work(number, image, left)

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """Write what has been noted, however the work ends; what cannot be written then was said by what ended it."""
        try:
            yield
        finally:
            if not self.lock.lost:
                with suppress(OSError, HaloflowError):
                    self.journal.flush()

    def take(self, outcome: Outcome) -> None:
        """Take what a task tells; the last one of an image lets it go on."""
        if self.lock.lost:
            self.lock.check()
        with writing_to(self.plan.store):
            self.journal.keep_up()
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
            (self._end if opened.failed else self._climb)(opened)
        self.settle(TOGETHER)
        if level is None:
            self.account.progress()

    def _count(self, opened: _Open, outcome: Outcome) -> None:
        self.account.take(opened.image, outcome)
        if isinstance(outcome, Failed):
            opened.failed += 1
            return
        for kept, sight in zip(opened.image.kept, outcome.sights, strict=True):
            opened.sights.add(kept.array, sight)

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
                number = next(self.numbers)
                for block in plan.blocks:
                    outcome = attempt(plan, number, block, self.cache, self.journal)
                    if isinstance(outcome, Failed):
                        opened.climb.fail(plan, outcome.reason)
        self._end(opened)

    def _end(self, opened: _Open) -> None:
        """Ask whether an image is still what was read: far away that takes a while, and others go on."""
        self.ending.append((opened, ask(opened.place, lambda: _has_changed(opened.image, opened.place))))
        self.settle(TOGETHER)

    def settle(self, most: int = 0) -> None:
        """Close the images of which it is known whether they have changed; wait until no more than so many are left."""
        while self.ending and (len(self.ending) > most or self.ending[0][1].done()):
            opened, changed = self.ending.popleft()
            self._close(opened, changed=changed.result())

    def _close(self, opened: _Open, *, changed: bool) -> None:
        """Write what viewers should show of an image's maps, and note that it is finished if it is."""
        image = opened.image
        failures = [*opened.climb.failures]
        if changed:
            failures.append({"image": image.source.path, "task": "all", "reason": "changed while the run read it"})
        for told in failures:
            self.account.fail(**told)
        with writing_to(self.plan.store):
            self._note(opened, finished=not (failures or opened.failed))
        self.account.image_done(image.source.path, opened.failed)

    def _note(self, opened: _Open, *, finished: bool) -> None:
        """Write what is known of an image at its end."""
        image = opened.image
        self.journal.check()
        if not self.new:
            sweep(self.plan.store, (folder for kept in image.kept for folder in output.folders(kept.array)))
        if not opened.failed:
            see_background(image, opened.sights)
        windows = {kept.array: opened.sights.windows(kept.array) for kept in image.kept}
        output.show(self.plan.store, windows)
        if self.maps is not None:
            self.maps |= {array.group: output.metadata(array, shown) for array, shown in windows.items()}
        if finished:
            self.journal.append(
                {
                    "finished": image.source.name,
                    "kind": self.kinds.of(image),
                    "tasks": len(image.blocks),
                    "pixels": image.pixels,
                    "missing": image.missing or 0,
                    "maps": [kept.array.group for kept in image.kept],
                }
            )

    def end(self) -> Report:
        """Write the tables, and return what has happened.

        Raises `RunError` where an image was begun and has not ended, whatever made the executor stop: no store is
        marked as complete then.
        """
        if begun := {opened.image.source.path for opened in self.open.values()}:
            raise RunError(f"{min(begun)}: was begun and has not ended, one of {len(begun)}; {AGAIN}")
        there = self.whole and self.account.is_idle and tables.are_there(self.plan, self.noted)
        if not there or (self.checksums and any(faults(self.plan.store, self.noted))):
            # What is gone of the tables is in the records.
            with writing_to(self.plan.store):
                account = self.account
                failures = tables.finish(self.plan, account.lost, self.kinds.outer, self.since, account.written_up)
                self.noted = note(self.plan.store, tables.files(self.plan))
            for told in failures:
                self.account.fail(**told)
        files = [str(self.plan.store / key) for key in tables.files(self.plan)]
        return self.account.report(files, decisions.read(self.plan))


def _has_changed(image: ImagePlan, place: Place) -> bool:
    try:
        return digest_of(place, image.source.array) != image.source.digest
    except (HaloflowError, OSError):  # it is gone
        return True
