"""Plan a job and run a plan."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import psutil

from pipeline.describe import parse_size
from pipeline.execute import cluster as dask_executor
from pipeline.execute import serial
from pipeline.execute.serial import explain
from pipeline.execute.task import Done, Failed, Outcome
from pipeline.job import Job
from pipeline.planner import plan_image
from pipeline.planning import Plan
from pipeline.storage import output, pyramid
from pipeline.storage.cache import ChunkCache
from pipeline.storage.images import open_images
from pipeline.storage.place import Place
from pipeline.storage.windows import Sights

__all__ = ["Report", "plan", "run"]


@dataclass(frozen=True)
class Report:
    """What happened in a run."""

    store: str
    images: int
    tasks: int
    done: int
    seconds: float
    pixels: int
    bytes_read: int
    bytes_written: int
    cluster: str
    started: str
    failures: tuple[dict[str, Any], ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether every task is done, and what is made at the end."""
        return self.done == self.tasks and not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {**asdict(self), "failures": list(self.failures), "complete": self.complete}

    def __str__(self) -> str:
        rate = self.pixels / 1e6 / max(self.seconds, 1e-9)
        lines = [
            f"{self.done} of {self.tasks} tasks done in {self.seconds:.1f} s: {self.images} images, "
            f"{self.pixels / 1e6:.1f} megapixels, {rate:.1f} a second; results in {self.store}"
        ]
        lines += [f"failed: {f['image']}, task {f['task']}: {f['reason']}" for f in self.failures]
        return "\n".join(lines)


def plan(job: Job, memory: str | int | None = None, kernel: str | None = None) -> Plan:
    """Plan a job: open its images, choose kernels, tasks and tiles, forecast memory and time. Nothing is written.

    Parameters
    ----------
    job
        From `pipeline.load`.
    memory
        What one worker may hold, in bytes or as in "2GB"; by default the machine's memory shared by its cores.
    kernel
        Force a kernel backend by name.

    Raises
    ------
    HaloflowError
        An `InputError`, `StackError` or `PlanError` that names the image and what does not fit.
    """
    limit = psutil.virtual_memory().total // (os.cpu_count() or 1) if memory is None else parse_size(memory)
    sources = open_images(job.config.input.images, job.config.input.level, job.options)
    images = tuple(
        plan_image(source, job.stack.layers, job.scale(source.dtype), job.output, limit, kernel) for source in sources
    )
    reads = (*(Place.of(source.path, job.options) for source in sources), *job.reads)
    return Plan(images, job.output.store, limit, job.config.model_dump(mode="json"), reads)


def run(
    plan: Plan,
    cluster: str = "local",
    workers: int | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Do what a plan says.

    Parameters
    ----------
    plan
        From `pipeline.plan`.
    cluster
        ``local`` (a process for each worker), ``threads`` (in this process), ``serial`` (one task after another, in
        this process), or the address of a Dask scheduler.
    workers
        How many workers, for ``local`` and ``threads``; by default one a core.
    overwrite
        Replace the output store if an earlier run of ours stands there.
    progress
        Called with the number of tasks ended and of all tasks, after each.

    Returns
    -------
    Report
        With every failed task in ``failures``: what did not fail is complete.

    Raises
    ------
    HaloflowError
        `OutputError` before any work where the store exists or overlaps an input; `ClusterError`.
    """
    output.check(plan.store, plan.reads, overwrite=overwrite)
    if cluster == "serial":
        return _run(plan, cluster, lambda: serial.run(plan), progress)
    with dask_executor.connect(cluster, workers, plan.memory) as client:
        return _run(plan, cluster, lambda: dask_executor.run(plan, client), progress)


def _run(
    plan: Plan,
    cluster: str,
    execute: Callable[[], Iterator[Outcome]],
    progress: Callable[[int, int], None] | None,
) -> Report:
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    record: dict[str, Any] = {"version": version("haloflow"), "config": dict(plan.config), "plan": plan.to_dict()}
    maps = [kept.array for image in plan.images for kept in image.kept]
    output.create(plan.store, maps, record)
    sights = Sights()
    done: list[int] = [0, 0, 0]
    failures: list[Failed] = []
    for outcome in execute():
        if isinstance(outcome, Done):
            done = [a + b for a, b in zip(done, (1, outcome.bytes_read, outcome.bytes_written), strict=True)]
            for kept, sight in zip(plan.images[outcome.image].kept, outcome.sights, strict=True):
                sights.add(kept.array, sight)
        else:
            failures.append(outcome)
        if progress:
            progress(done[0] + len(failures), plan.tasks)
    unfinished = _finish_pyramids(plan, {failed.image for failed in failures})
    report = Report(
        store=str(plan.store),
        images=len(plan.images),
        tasks=plan.tasks,
        done=done[0],
        seconds=round(time.perf_counter() - clock, 3),
        pixels=sum(image.extents[0][0] * image.extents[0][1] for image in plan.images),
        bytes_read=done[1],
        bytes_written=done[2],
        cluster=cluster,
        started=started,
        failures=tuple(
            {
                "image": plan.images[f.image].source.path,
                "task": f"{f.block} at input pixel "
                f"{tuple(a * b for a, b in zip(_index(plan, f), plan.images[f.image].grid.step, strict=True))}",
                "reason": f.reason,
            }
            for f in sorted(failures, key=lambda f: (f.image, f.block))
        )
        + tuple(unfinished),
    )
    record |= {"report": report.to_dict(), "complete": report.complete}
    output.finish(plan.store, {m: sights.windows(m) for m in maps}, record)
    return report


def _finish_pyramids(plan: Plan, failed: Collection[int]) -> list[dict[str, Any]]:
    """Make the levels that are left of the images whose tasks are all done; return what failed, for the report."""
    cache, failures = ChunkCache(0), []
    for image in (image for number, image in enumerate(plan.images) if number not in failed):
        for kept in image.kept:
            try:
                for level, place in pyramid.left(kept.array):
                    pyramid.make(plan.store, kept.array, level, place, cache)
            except Exception as error:  # noqa: BLE001 - whatever storage raises, the other maps go on
                what = {"image": image.source.path, "task": f"the pyramid of {kept.array.layer}"}
                failures.append({**what, "reason": explain(error)})
    return failures


def _index(plan: Plan, failed: Failed) -> tuple[int, ...]:
    return plan.images[failed.image].grid.index(plan.images[failed.image].blocks[failed.block])
