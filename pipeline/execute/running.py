"""A run from its beginning to its end: one owner, records of what is done, and a mark when all of it is."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.clusters import manager
from pipeline.clusters.base import Manager
from pipeline.errors import InputError, OutputError, RunError
from pipeline.execute import cluster as dask_executor
from pipeline.execute import crew as crews
from pipeline.execute import decisions, pyramids, serial, tables
from pipeline.execute.crew import Crew
from pipeline.execute.interrupts import Interrupts
from pipeline.execute.remaining import planned_units, remaining
from pipeline.execute.report import Report
from pipeline.execute.runfile import RunFile
from pipeline.execute.task import Done, Failed, Outcome
from pipeline.execute.watching import Event, Watch
from pipeline.planning import ImagePlan, Plan
from pipeline.storage import output, records, target
from pipeline.storage.identity import differences, digest
from pipeline.storage.images import RESERVED, digest_of
from pipeline.storage.lock import Lock, acquire, look
from pipeline.storage.place import Place
from pipeline.storage.records import Records, Segment, Segments
from pipeline.storage.windows import Sights

Execute = Callable[..., Iterator[Outcome]]
"""Of what is to run, of segments, and of a function that says when to stop, if any."""


def run(
    plan: Plan,
    cluster: str,
    workers: int | None,
    *,
    overwrite: bool,
    resume: bool,
    progress: Callable[[Event], None] | None,
    performance_report: str | Path | None,
) -> Report:
    """Do what a plan says: see `pipeline.run`."""
    if overwrite and resume:
        raise OutputError("--overwrite begins anew and --resume goes on: give one of them")
    where = None if cluster == "serial" else manager(cluster)
    crews.check(performance_report, cluster)
    told: RunFile | None = None
    target.check(plan.store, plan.reads, overwrite=overwrite, resume=resume)
    seen = look(plan.store)
    fresh = not target.exists(plan.store)
    before = target.recorded(plan.store) if resume and not fresh else None
    found = _found(plan, before) if before else Records()
    try:
        lock = acquire(plan.store)
    except OSError as error:
        raise OutputError(f"output.store: {plan.store} cannot be made: {error}") from error
    state = "refused"
    if lock.counter != (seen.owner.counter if seen else 0) + 1:
        # Between the look and the lock another run came and ended: what it made is not this one's to replace.
        lock.release(state)
        raise OutputError(
            f"output.store: another run has just written {plan.store}; see 'haloflow status {plan.store}'"
        )
    try:
        with _executor(where, workers, plan.memory, performance_report) as (execute, crew):
            state = "interrupted"
            maps = [kept.array for image in plan.images for kept in image.kept]
            if before is None:
                if not fresh:
                    target.clear(plan.store)
                output.create(plan.store, maps, _record(plan))
            else:
                output.reopen(plan.store)
                output.add(plan.store, maps)
            whole = before is not None and before.get("complete") is True
            images = len(plan.images) + len(plan.bad)
            told, watch = RunFile(plan, images, cluster, crew), Watch(progress)
            watch.start(str(plan.store), images, cluster, crew.workers, crew.dashboard)
            report = _Run(plan, lock, found, cluster, watch, told).go(execute, whole=whole)
        state = "complete" if report.complete else "failed"
        watch.end(report)
    finally:
        if told and state == "interrupted" and not lock.lost:
            told.break_off()
        lock.release(state)
        if state == "refused" and fresh:
            # In a bucket others may have put things below the same name.
            plan.store.delete("" if plan.store.is_local else RESERVED)
    return report


@contextmanager
def _executor(
    where: Manager | None, workers: int | None, memory: int, file: str | Path | None
) -> Iterator[tuple[Execute, Crew]]:
    if where is None:
        yield serial.run, Crew(1, None)
        return
    with where.connect(workers, memory) as client, crews.reported(client, file):
        yield lambda plan, segments, *stop: dask_executor.run(plan, client, segments, *stop), Crew.of(client)


def _record(plan: Plan) -> dict[str, Any]:
    return {
        "version": version("haloflow"),
        "config": dict(plan.config),
        "identity": plan.identity,
        "plan": plan.to_dict(),
    }


def _found(plan: Plan, before: Mapping[str, Any]) -> Records:
    """Return what an earlier run has done; raises `OutputError` where this one would make something else."""
    again = "begin anew with --overwrite, or name another store"
    changed = differences(before.get("identity", {}), plan.identity)
    if changed:
        listed = "".join(f"\n  {line}" for line in changed[:20])
        raise OutputError(f"output.store: {plan.store} was begun by a run that differs; {again}:{listed}")
    found = records.read(plan.store, digest(plan.identity))
    bad = dict(plan.bad)
    sources = {image.source.name: image.source for image in plan.images}
    for event in found.events:
        if "image" not in event:
            continue
        source = sources.get(event["image"])
        if event["path"] in bad:
            continue
        if source is None:
            raise OutputError(f"input.images: {event['path']} is in {plan.store} and no longer in the input; {again}")
        if source.digest != event["digest"]:
            raise OutputError(f"{source.path}: has changed since the run in {plan.store} was begun; {again}")
    return found


class _Run:
    """One run, of which this process owns the store."""

    def __init__(self, plan: Plan, lock: Lock, found: Records, cluster: str, watch: Watch, told: RunFile) -> None:
        self.plan = plan
        self.lock = lock
        self.found = found
        self.cluster = cluster
        self.watch = watch
        self.told = told
        self.left: list[int] = []
        """Of each image, its tasks that have not ended."""
        self.segments = Segments(plan.store, digest(plan.identity), lock.counter)
        self.journal: Segment = self.segments.begin()
        self.sights = Sights()
        self.failures: list[Failed] = []
        self.resumed = self.done = 0
        self.bytes = [0, 0]
        self.started, self.clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()

    def go(self, execute: Execute, *, whole: bool) -> Report:
        """Run all that is not recorded, and end with the mark; of a store that was ``whole`` nothing is made again."""
        left = tuple(self._begin(image) for image in self.plan.images)
        self.resumed = self.done = self.plan.tasks - sum(len(image.blocks) for image in left)
        self.left = [len(image.blocks) for image in left]
        for number, tasks in enumerate(self.left):
            if not tasks:
                self._ended(number)
        for path, reason in self.plan.bad:
            self.watch.failed(path, "all", reason)
            self.watch.image_done(path, 1)
        self.lock.begin(self._news)
        if any(image.blocks for image in left):
            with Interrupts() as interrupts:
                for outcome in execute(replace(self.plan, images=left), self.segments, lambda: bool(interrupts)):
                    if self.lock.lost:
                        self.lock.check()
                    self._take(outcome)
                if interrupts:
                    self.journal.close(sync=True)
                    interrupts.pass_on()
                    raise RunError("interrupted; what is done is recorded: go on with --resume")
        self.lock.check()
        if whole and not any(image.blocks for image in left):
            return self._end([])
        failed = {outcome.image for outcome in self.failures}
        unfinished = pyramids.finish(self.plan, failed, self.segments, execute, self.lock.check)
        self.lock.check()
        return self._end([*unfinished, *tables.finish(self.plan, failed)])

    def _begin(self, image: ImagePlan) -> ImagePlan:
        """Note which image is read; return what of it is left to do."""
        source = image.source
        event = {"image": source.name, "path": source.path, "digest": source.digest, "units": planned_units(image)}
        self.journal.append(event)
        return remaining(image, self.found, self.sights)

    def _take(self, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            self.done += 1
            self.bytes = [self.bytes[0] + outcome.bytes_read, self.bytes[1] + outcome.bytes_written]
            for kept, sight in zip(self.plan.images[outcome.image].kept, outcome.sights, strict=True):
                self.sights.add(kept.array, sight)
        else:
            self.failures.append(outcome)
            self.watch.failed(**self._failure(outcome))
        self.watch.take(outcome, _pixels(self.plan.images[outcome.image]) / len(self.plan.images[outcome.image].blocks))
        self.left[outcome.image] -= 1
        if not self.left[outcome.image]:
            self._ended(outcome.image)
        self.watch.progress(self.plan.tasks, self.done, len(self.failures))

    def _ended(self, number: int) -> None:
        failed = sum(failure.image == number for failure in self.failures)
        self.watch.image_done(self.plan.images[number].source.path, failed)

    def _failure(self, failed: Failed) -> dict[str, Any]:
        image = self.plan.images[failed.image]
        return {
            "image": image.source.path,
            "task": f"{failed.block} at {image.where(failed.block)}",
            "reason": failed.reason,
        }

    def _news(self) -> dict[str, Any]:
        """Return what signs of life tell besides."""
        rate = (self.done - self.resumed) / max(1e-9, time.perf_counter() - self.clock)
        tasks = self.plan.tasks
        return {"done": self.done, "tasks": tasks, "failed": len(self.failures), "rate": round(rate, 3)}

    def _end(self, unfinished: list[dict[str, Any]]) -> Report:
        report = self._report(unfinished)
        self.journal.close(sync=True)
        record = {**_record(self.plan), "report": report.to_dict(), "complete": report.complete}
        maps = [kept.array for image in self.plan.images for kept in image.kept]
        self.told.end(report)
        output.finish(self.plan.store, {m: self.sights.windows(m) for m in maps}, record)
        return report

    def _report(self, unfinished: list[dict[str, Any]]) -> Report:
        plan = self.plan
        failures = [self._failure(f) for f in sorted(self.failures, key=lambda f: (f.image, f.block))]
        failures += [{"image": path, "task": "all", "reason": reason} for path, reason in plan.bad]
        late = unfinished + [
            {"image": image.source.path, "task": "all", "reason": "changed while the run read it"}
            for image, place in zip(plan.images, plan.reads, strict=False)
            if _has_changed(image, place)
        ]
        for failure in late:
            self.watch.failed(**failure)
        return Report(
            store=str(plan.store),
            images=len(plan.images) + len(plan.bad),
            tasks=plan.tasks,
            done=self.done,
            resumed=self.resumed,
            seconds=round(time.perf_counter() - self.clock, 3),
            pixels=sum(map(_pixels, plan.images)),
            bytes_read=self.bytes[0],
            bytes_written=self.bytes[1],
            cluster=self.cluster,
            started=self.started,
            failures=(*failures, *late),
            tables=tuple(tables.paths(plan)),
            decided=decisions.read(plan),
        )


def _pixels(image: ImagePlan) -> int:
    return image.source.planes * image.extents[0][0] * image.extents[0][1]


def _has_changed(image: ImagePlan, place: Place) -> bool:
    try:
        return digest_of(image.source, place) != image.source.digest
    except InputError:  # it is gone
        return True
