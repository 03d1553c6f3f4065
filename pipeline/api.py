"""Plan a job and run a plan."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from pipeline.batch import Batch
from pipeline.describe import parse_size
from pipeline.execute import running
from pipeline.execute.report import Report
from pipeline.execute.watching import Event
from pipeline.job import Job
from pipeline.planner import Planner
from pipeline.planning import Plan
from pipeline.storage.alike import Opener
from pipeline.storage.identity import identity
from pipeline.storage.images import find_apart
from pipeline.storage.selecting import select
from pipeline.tables import formats as tables
from pipeline.tables.watch import wanted_of

__all__ = ["Report", "plan", "run"]


def plan(
    job: Job,
    memory: str | int | None = None,
    kernel: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan a job: choose kernels, tasks and tiles, forecast memory and time. Nothing is written.

    Of many images one is opened here, and each of the others when it is asked for.

    Parameters
    ----------
    job
        From `pipeline.load`.
    memory
        What one worker may hold, in bytes or as in "2GB"; by default the machine's memory shared by its cores.
    kernel
        Force a kernel backend by name.
    storage_options
        What opens the URLs of inputs and output, such as keys and endpoints, in place of those the job was loaded with.
        They go to the workers, and are written nowhere.

    Raises
    ------
    HaloflowError
        A `PlaceError` where a place cannot be reached; an `InputError`, `StackError` or `PlanError` that names the
        image and what does not fit, where no image can be run. Where some can, the others are in the plan's ``bad``,
        with the reasons, and fail alone when they are run.
    """
    if storage_options is not None:
        job = job.opened_with(storage_options)
    limit = psutil.virtual_memory().total // (os.cpu_count() or 1) if memory is None else parse_size(memory)
    given, config = job.config.input, job.config.model_dump(mode="json")
    places = find_apart(given.images, job.options)
    opener, planner = Opener(given.level), Planner(job.stack.layers, job.scale, job.output, limit, kernel)
    images = Batch(places, lambda place: planner.plan(select(opener.open(place), given, "input")))
    wanted = wanted_of(job.output.watches.values())
    # Of tables one says where all images lie: then all of them are looked at here.
    geos = (image.source.geo for image in images) if wanted[0] else ()
    tables.check(wanted, {geo.crs if geo else "" for geo in geos})
    return Plan(
        images,
        job.output.store,
        limit,
        config,
        (*places, *job.reads),
        identity(config, job.features, kernel),
    )


def run(
    plan: Plan,
    cluster: str = "local",
    workers: int | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[Event], None] | None = None,
    performance_report: str | Path | None = None,
) -> Report:
    """Do what a plan says.

    Parameters
    ----------
    plan
        From `pipeline.plan`.
    cluster
        ``local`` (a process for each worker), ``threads`` (in this process), ``serial`` (one task after another, in
        this process), the address of a Dask scheduler, or a YAML file such as those in ``configs/clusters``.
    workers
        How many workers, before what the file says; by default, for ``local`` and ``threads``, one a core.
    overwrite
        Replace the output store if an earlier run of ours stands there.
    resume
        Go on with the output store if an earlier run of ours stands there: make only what it has no record of.
    progress
        Called with the events of `pipeline.execute.watching`, as they come: when the work begins, after each task, and
        so on.
    performance_report
        A file for Dask's report (HTML) on how the workers spent their time; needs the extra ``dashboard``.

    Returns
    -------
    Report
        With every failed task in ``failures``: what did not fail is complete.

    Raises
    ------
    HaloflowError
        `OutputError` before any work where the store exists, another run holds it, it overlaps an input, or it was
        begun with another config or input; `ClusterError` where there is no such cluster, or its workers have other
        versions; `RunError` where the cluster is lost.
    """
    return running.run(
        plan,
        cluster,
        workers,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        performance_report=performance_report,
    )
