"""Plan a job and run a plan."""

import os
from collections.abc import Mapping
from typing import Any

import psutil

from pipeline.batch import Batch
from pipeline.describe import parse_size
from pipeline.execute.report import Report
from pipeline.execute.running import run
from pipeline.job import Job
from pipeline.planner import Planner
from pipeline.planning import Plan
from pipeline.storage.alike import Opener
from pipeline.storage.identity import identity
from pipeline.storage.images import find_apart
from pipeline.storage.place import Place
from pipeline.storage.selecting import select
from pipeline.storage.source import Source
from pipeline.storage.stored import Listing, list_chunks
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
    TypeError
        Where it is given something else than a job.
    """
    if not isinstance(job, Job):
        raise TypeError(f"expected a job, as pipeline.load(config) gives it, not {type(job).__name__}")
    if storage_options is not None:
        job = job.opened_with(storage_options)
    limit = psutil.virtual_memory().total // (os.cpu_count() or 1) if memory is None else parse_size(memory)
    given, config = job.config.input, job.config.model_dump(mode="json")
    places = find_apart(given.images, job.options, job.output.store)
    complete = given.missing == "error"
    opener, planner = (
        Opener(given.level),
        Planner(job.stack.layers, job.scale, job.output, limit, kernel, complete=complete),
    )

    def opened(place: Place) -> tuple[Source, Listing]:
        source = select(opener.open(place), given, "input")
        return source, list_chunks(source, every=complete)

    images = Batch(places, opened, lambda found: planner.plan(*found))
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
