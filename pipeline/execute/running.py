"""A run from its beginning to its end: one owner, records of what is done, and a mark when all of it is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from distributed import Client

from pipeline.agreement import own
from pipeline.clusters import manager
from pipeline.clusters.base import Manager
from pipeline.describe import image_dict, plan_record
from pipeline.errors import HaloflowError, OutputError, RunError, whole_number, writing_to, yes_or_no
from pipeline.execute import cluster as dask_executor
from pipeline.execute import crew as crews
from pipeline.execute import serial
from pipeline.execute.account import Account
from pipeline.execute.course import Course
from pipeline.execute.crew import Crew
from pipeline.execute.interrupts import Interrupts
from pipeline.execute.report import Report
from pipeline.execute.runfile import RunFile
from pipeline.execute.task import Outcome
from pipeline.execute.watching import Event
from pipeline.kinds import Kinds
from pipeline.planning import Plan
from pipeline.storage import output, target
from pipeline.storage.ahead import in_turn
from pipeline.storage.forms import zarr_format
from pipeline.storage.identity import differences, digest
from pipeline.storage.images import RESERVED, digest_of
from pipeline.storage.lock import acquire, look
from pipeline.storage.place import Place
from pipeline.storage.recorded import ALL, PAST, SINCE, Records, begun_with, read
from pipeline.storage.tablefiles import NOTED

Execute = Callable[..., Iterator[Outcome]]
"""Of a feed, of segments, and of a function that says when to stop, if any."""

ANEW = "begin anew with --overwrite, or name another store"
"""What to do about a store that a run cannot go on with."""

FIRST = 64
"""Images that are described in a store before its run begins; the others when they have been looked at."""


def run(
    plan: Plan,
    cluster: str | Client = "local",
    workers: int | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    checksums: bool = False,
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
        this process), the address of a Dask scheduler, or a YAML file such as those in ``configs/clusters``; or a
        client of `distributed`, which stays open.
    workers
        How many workers, before what the file says; by default, for ``local`` and ``threads``, one a core.
    overwrite
        Replace the output store if an earlier run of ours stands there.
    resume
        Go on with the output store if an earlier run of ours stands there: make only what it has no record of.
    checksums
        With ``resume``: read again all that the records name, and make anew what is not as it was written.
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
    TypeError
        Where it is given something else than a plan, True or False, or a ``progress`` that cannot be called.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"expected a plan, as pipeline.plan(job) gives it, not {type(plan).__name__}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function of an event, not {progress!r}")
    workers = None if workers is None else whole_number("workers", workers)
    yes_or_no(overwrite=overwrite, resume=resume, checksums=checksums)
    if overwrite and resume:
        raise OutputError("--overwrite begins anew and --resume goes on: give one of them")
    if checksums and not resume:
        raise OutputError("--checksums looks at what an earlier run made: give --resume, too")
    where = None if cluster == "serial" else manager(cluster)
    name = cluster if isinstance(cluster, str) else cluster.scheduler.address
    crews.check(performance_report, name)
    told: RunFile | None = None
    target.check(plan.store, plan.reads, overwrite=overwrite, resume=resume)
    seen = look(plan.store)
    fresh = not target.exists(plan.store)
    makes = plan.store.is_local and not plan.store.exists()
    before = target.begun(plan.store) if resume and not fresh else None
    found = _found(plan, before, checksums=checksums) if before else None
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
            if before is None and not fresh:
                target.clear(plan.store)
            told = _begin(plan, RunFile(plan, name, crew), None if before is not None else lock.counter)
            account = Account(plan, name, progress)
            account.start(crew)
            report = _through(Course(plan, lock, found, account, before, checksums=checksums), execute, told)
        state = "complete" if report.complete else "failed"
        account.end(report)
    finally:
        if told and state == "interrupted" and not lock.lost:
            told.break_off()
        if state == "refused" and fresh:
            # An empty folder that stood there stays, and in a bucket others may have put things below the same name.
            # The lock goes with it: who comes after this run makes a store of its own, and that is left alone.
            with suppress(OSError, HaloflowError):
                plan.store.delete("" if makes else RESERVED)
        lock.release(state)
    return report


def _begin(plan: Plan, told: RunFile, since: int | None) -> RunFile:
    """Make the store with the lock ``since``, or take its mark where a run goes on with it; say that work begins."""
    if since is not None:
        kept = plan.images[0].kept
        output.create(plan.store, {**_begun(plan), SINCE: since}, zarr_format(kept[0].array) if kept else 3)
    with writing_to(plan.store):
        if since is None:
            output.reopen(plan.store)
        told.begin()
    return told


@contextmanager
def _executor(
    where: Manager | None, workers: int | None, memory: int, file: str | Path | None
) -> Iterator[tuple[Execute, Crew]]:
    if where is None:
        yield serial.run, Crew(1, None)
        return
    with where.connect(workers, memory) as client, crews.reported(client, file):
        ours = where.starts
        yield lambda feed, segments, *stop: dask_executor.run(feed, client, segments, *stop, ours=ours), Crew.of(client)


def _record(plan: Plan, kinds: Kinds) -> dict[str, Any]:
    return {
        "version": own()["haloflow"],
        "config": dict(plan.config),
        "identity": plan.identity,
        "plan": plan_record(plan, kinds),
    }


def _begun(plan: Plan) -> dict[str, Any]:
    """Return what a store says of its run from the beginning: of many images, what the first ones are."""
    kinds = Kinds(image_dict)
    for image in islice(plan.images, FIRST):
        kinds.add(image)
    return _record(plan, kinds)


def _found(plan: Plan, before: Mapping[str, Any], *, checksums: bool) -> Records:
    """Return what an earlier run has done; raises `OutputError` where this one would make something else."""
    changed = differences(before.get("identity", {}), plan.identity) or _other_kernels(plan, before)
    if changed:
        listed = "".join(f"\n  {line}" for line in changed[:20])
        raise OutputError(f"output.store: {plan.store} was begun by a run that differs; {ANEW}:{listed}")
    found = read(plan.store, digest(plan.identity), begun_with(before), doubt=ALL if checksums else PAST)
    begun = {event["image"]: event for event in found.events}
    # In a bucket that note may come after a second of work, and without it nobody knows which input was read.
    found.images = {name: recorded for name, recorded in found.images.items() if name in begun}
    _check_inputs(plan, begun)
    if len(plan.inputs) <= output.TOGETHER:
        for finished in found.finished.values():
            for group in finished["maps"]:
                output.shown(plan.store, group)  # which is wanted at the end, and refused here where it is damaged
    return found


def _check_inputs(plan: Plan, begun: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse images that are not what an earlier run has begun, by their names in the output."""
    places, events = {str(place): place for place in plan.places}, dict[Place, Mapping[str, Any]]()
    for name, event in begun.items():
        path = plan.inputs.get(name)
        if path is None:
            raise OutputError(f"input.images: {event['path']} is in {plan.store} and no longer in the input; {ANEW}")
        events[places[path]] = event

    def now(place: Place) -> str:
        array = events[place]["array"]
        return digest_of(place, place / array if array else place)

    for (place, event), answer in zip(events.items(), in_turn(events, now), strict=True):
        try:
            changed = answer.result() != event["digest"]
        except (HaloflowError, OSError):  # it fails alone when its turn has come
            continue
        if changed:
            raise OutputError(f"{place}: has changed since the run in {plan.store} was begun; {ANEW}")


def _other_kernels(plan: Plan, before: Mapping[str, Any]) -> list[str]:
    """Say which layers get another kernel than in an earlier run, by an image of each kind that its plan tells of.

    Nobody need have asked for it: which kernel is the best, and which rounds alike everywhere, may be another one with
    another Haloflow, and on another machine.
    """
    numbers, found = {name: number for number, name in enumerate(plan.inputs)}, dict[str, None]()
    for told in before["plan"]["images"]:
        made = plan.attempt(numbers[told["name"]]) if told["name"] in numbers else None
        if made is None or isinstance(made, HaloflowError):
            continue  # it fails alone when its turn has come
        for layer, choice in zip(told["layers"], made.stack.choices, strict=True):
            if layer["kernel"] != choice.backend:
                found[f"kernel of '{layer['name']}': {layer['kernel']} → {choice.backend}"] = None
    return list(found)


def _through(course: Course, execute: Execute, told: RunFile) -> Report:
    """Run all that is not recorded, and end with the mark."""
    plan, lock = course.plan, course.lock
    lock.begin(course.account.news)
    with Interrupts() as interrupts, course.flushed():
        for outcome in execute(course.work(interrupts.heard), course.segments, interrupts.heard):
            course.take(outcome)
        if not interrupts.heard():
            course.settle()
        if interrupts.heard():
            with writing_to(plan.store):
                course.journal.close(sync=True)
            interrupts.pass_on()
            raise RunError("interrupted; what is done is recorded: go on with --resume")
    lock.check()
    with writing_to(plan.store):
        course.journal.close(sync=True)
    report = course.end()
    with writing_to(plan.store):
        told.end(report)
        record = {**_record(plan, course.kinds), "report": report.to_dict(), NOTED: course.noted, SINCE: course.since}
        output.finish(plan.store, course.maps, {**record, "complete": report.complete})
    return report
