"""The account of a run: what became of its images and tasks, told as events on the way and as the report at the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import counted
from pipeline.execute.crew import Crew
from pipeline.execute.decisions import Decided
from pipeline.execute.report import Report
from pipeline.execute.task import Done, Outcome
from pipeline.execute.watching import Event, Finished, ImageDone, Progress, Started, TaskFailed, WritingTables
from pipeline.planning import ImagePlan, Plan

WHOLE = 2**63
"""Instead of a block's number, of a failure that is of no block."""

NOTES = 20
"""Notes that a report has at the most: each of ten thousand images may have one of its own."""


class Account:
    """Counts what is told of a run, and tells a listener, if there is one."""

    def __init__(self, plan: Plan, cluster: str, listener: Callable[[Event], None] | None) -> None:
        self._store = str(plan.store)
        self._names = list(plan.inputs)
        self._numbers = {path: number for number, path in enumerate(plan.inputs.values())}
        self._cluster = cluster
        self._tell = listener or (lambda _: None)
        self._looked = 0
        """Images that somebody has looked at; of these are the tasks, the pixels and the chunks that are missing."""
        self._images_done = 0
        self._tasks = self._resumed = self._done = self._failed = 0
        self._pixels = self._missing = 0
        self._made = 0.0
        """Pixels, in this run."""
        self._read = self._written = 0
        self._retries = 0
        self._failures: list[tuple[int, int, dict[str, Any]]] = []
        """Each with the number of its image and its block."""
        self._notes: dict[str, tuple[str, int]] = {}
        """The first image that each was said of, and how many others."""
        self._started, self._clock = datetime.now(UTC), time.perf_counter()

    def start(self, crew: Crew) -> None:
        """Tell that work begins; images that could not be planned count, too."""
        self._tell(Started(self._store, len(self._names), self._cluster, crew.workers, crew.dashboard))

    def pass_over(self, path: str, finished: Mapping[str, Any]) -> None:
        """Count an image that an earlier run has finished, by what it noted then."""
        self._count(finished["tasks"], finished["tasks"], finished["pixels"], finished["missing"])
        self.image_done(path, 0)

    def begin(self, image: ImagePlan, before: int) -> None:
        """Count an image of which so many tasks were done before."""
        self._count(len(image.blocks), before, image.pixels, image.missing or 0)
        for note in image.notes:
            if note in self._notes or len(self._notes) < NOTES:
                first, others = self._notes.get(note, (image.source.path, -1))
                self._notes[note] = first, others + 1

    def _count(self, tasks: int, before: int, pixels: int, missing: int) -> None:
        self._looked += 1
        self._tasks += tasks
        self._resumed += before
        self._done += before
        self._pixels += pixels
        self._missing += missing

    def refuse(self, path: str, reason: str) -> None:
        """Count an image that cannot be run."""
        self._looked += 1
        self.fail(path, "all", reason)
        self.image_done(path, 1)
        self.progress()

    def take(self, image: ImagePlan, outcome: Outcome) -> None:
        """Count what a task of an image tells."""
        self._made += image.pixels / len(image.blocks)
        self._retries += outcome.retries
        if isinstance(outcome, Done):
            self._done += 1
            self._read += outcome.bytes_read
            self._written += outcome.bytes_written
        else:
            self._failed += 1
            where = f"{outcome.block} at {image.where(outcome.block)}"
            self.fail(image.source.path, where, outcome.reason, outcome.block)

    def fail(self, image: str, task: str, reason: str, block: int = WHOLE) -> None:
        """Tell of a failure, of an image by its path, and keep it for the report."""
        failed = TaskFailed(image, task, reason)
        self._failures.append((self._numbers[image], block, asdict(failed)))
        self._tell(failed)

    def image_done(self, path: str, failed: int) -> None:
        """Tell that all tasks of an image have ended, and how many failed."""
        self._images_done += 1
        self._tell(ImageDone(path, failed))

    def progress(self) -> None:
        """Tell how far the run is."""
        seconds = time.perf_counter() - self._clock
        tasks, ended = self._all, self._done + self._failed
        now = ended - self._resumed
        left = (tasks - ended) * seconds / now if now else None
        self._tell(
            Progress(
                tasks,
                self._done,
                self._failed,
                len(self._names),
                self._images_done,
                round(self._made),
                self._read,
                self._written,
                self._retries,
                round(seconds, 3),
                None if left is None else round(max(0.0, left), 1),
            )
        )

    def written_up(self, images: int) -> None:
        """Tell of how many images the tables have all rows."""
        self._tell(WritingTables(len(self._names), images))

    @property
    def _all(self) -> int:
        """The number of all tasks; those of images that nobody has looked at yet are taken to be as many as others'."""
        return self._tasks * len(self._names) // max(1, self._looked)

    def news(self) -> dict[str, Any]:
        """Return what signs of life tell besides."""
        rate = (self._done - self._resumed) / max(1e-9, time.perf_counter() - self._clock)
        return {"done": self._done, "tasks": self._all, "failed": self._failed, "rate": round(rate, 3)}

    @property
    def is_idle(self) -> bool:
        """Whether no task was done in this run, and nothing failed."""
        return self._done == self._resumed and not self._failures

    @property
    def lost(self) -> set[str]:
        """The names of the images that have no rows in tables: those of which a task failed, or all of it."""
        return {
            self._names[number]
            for number, block, failure in self._failures
            if block != WHOLE or failure["task"] == "all"
        }

    def report(self, tables: Sequence[str], decided: Decided | None) -> Report:
        """Return what has happened; failures by image and block."""
        return Report(
            store=self._store,
            images=len(self._names),
            tasks=self._tasks,
            done=self._done,
            resumed=self._resumed,
            seconds=round(time.perf_counter() - self._clock, 3),
            pixels=self._pixels,
            bytes_read=self._read,
            bytes_written=self._written,
            cluster=self._cluster,
            started=self._started.isoformat(timespec="seconds"),
            missing_chunks=self._missing,
            failures=tuple(failure for *_, failure in sorted(self._failures, key=lambda one: one[:2])),
            tables=tuple(tables),
            decided=decided,
            notes=tuple(
                f"{first}{' and ' + counted(others, 'other') if others else ''}: {note}"
                for note, (first, others) in self._notes.items()
            ),
        )

    def end(self, report: Report) -> None:
        """Tell that the run has ended."""
        self._tell(Finished(report))
