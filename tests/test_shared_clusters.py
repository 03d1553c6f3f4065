"""Clusters that others use, too: workers that are busy, stopped, gone or not there yet, and what a run leaves there."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

import pipeline
from pipeline import agreement
from pipeline.errors import ClusterError, HaloflowWarning, RunError
from pipeline.execute import cluster, drive, roster, stock
from pipeline.execute.feed import Feed
from pipeline.execute.task import Done, Outcome
from pipeline.planning import ImagePlan
from pipeline.storage.place import Place
from pipeline.storage.records import Segments


def cut() -> ImagePlan:
    """Return a plan of some hundreds of small tasks."""
    image = pipeline.plan(pipeline.load("config.yaml", ["output.chunks=1"])).images[0]
    return replace(image, grid=replace(image.grid, step=(2, 2)))


def outcomes_of(small: Path, client: Client) -> Iterator[Outcome]:
    yield from cluster.run(Feed.of([cut()]), client, Segments(Place.of(str(small / "none")), "", 1))


def are_all(outcomes: list[Outcome]) -> bool:
    done = [outcome.block for outcome in outcomes if isinstance(outcome, Done)]
    return sorted(done) == list(range(len(outcomes))) and len(outcomes) > 200


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks do nothing but take a while, in workers that are threads of this process."""

    def attempt(plan: object, image: int, block: int, cache: object, segment: object) -> Done:
        time.sleep(0.005)
        return Done(image, block, 0.005, 1, 1, ())

    monkeypatch.setattr(cluster, "attempt", attempt)
    monkeypatch.setattr(stock, "BATCH", 0.02)


def threads(workers: int) -> Any:
    return LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=":0")


@pytest.mark.usefixtures("idle")
def test_a_worker_that_is_at_others_tasks_is_waited_for(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "LEAST", 1.0)
    monkeypatch.setattr(roster, "WAIT", 1)
    with threads(1) as made, Client(made) as client:
        other = client.submit(time.sleep, 6, pure=False)
        with pytest.warns(HaloflowWarning, match=r"the worker \S+ is at other tasks, or paused") as told:
            assert are_all(list(outcomes_of(small, client)))
        assert len(told) == 1
        assert other.done()


@pytest.mark.usefixtures("idle")
def test_where_there_is_no_worker_any_more_one_is_asked_for(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "WAIT", 20)
    with threads(0) as made, Client(made) as client:
        made.adapt(minimum=0, maximum=1, interval="200ms")
        assert are_all(list(outcomes_of(small, client)))
        assert not client.futures


@pytest.mark.usefixtures("idle")
def test_what_all_lost_workers_had_is_not_kept_by_the_scheduler(small: Path) -> None:
    with threads(1) as made, Client(made) as client:
        outcomes: list[Outcome] = []
        for outcome in outcomes_of(small, client):
            if not outcomes:
                client.retire_workers()
                made.scale(2)
            outcomes.append(outcome)
        assert are_all(outcomes)
        deadline = time.monotonic() + 20
        while made.scheduler.tasks and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not client.futures
        assert not made.scheduler.tasks


@pytest.mark.usefixtures("idle")
def test_a_worker_that_hears_no_more_of_a_run_keeps_no_chunks(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the client was killed: the plugin stays, for nobody takes it away."""
    monkeypatch.setattr(cluster, "IDLE", 0.2)
    with threads(1) as made, Client(made) as client:
        going = outcomes_of(small, client)
        first = next(going)
        (held,) = [plugin for name, plugin in made.workers[0].plugins.items() if name.startswith("haloflow-")]
        kept = held.cache
        assert held.plans
        deadline = time.monotonic() + 20
        while (held.plans or held.cache is kept) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not held.plans
        assert held.cache is not kept
        assert are_all([first, *going])  # and goes on where it does


@pytest.mark.parametrize(("before", "error"), [(False, ClusterError), (True, RunError)])
def test_a_worker_that_is_stopped_before_the_run_is_named_in_time(
    small: Path, monkeypatch: pytest.MonkeyPatch, before: bool, error: type[Exception]
) -> None:
    """Also where a run was there before, and the worker has said what it has."""
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as made,
        Client(made) as client,
    ):
        if before:
            pipeline.run(plan, client)
        worker, process = next(iter(client.run(os.getpid).items()))
        os.kill(process, signal.SIGSTOP)
        try:
            monkeypatch.setattr(agreement, "ANSWER", 4.0)
            monkeypatch.setattr(cluster, "ANSWER", 4.0)
            with pytest.raises(error, match=f"the worker {worker} does not answer; end it, and run again"):
                pipeline.run(plan, client, overwrite=True)
        finally:
            os.kill(process, signal.SIGCONT)
        assert pipeline.run(plan, client, overwrite=before).complete


def test_only_what_a_worker_knows_of_and_has_not_begun_waits_there() -> None:
    with threads(1) as made, Client(made) as client:
        who = roster.Roster(client)
        (worker,) = who.look()
        first, second = (client.submit(time.sleep, seconds, workers=[worker], pure=False) for seconds in (4, 0))
        deadline = time.monotonic() + 20
        while not made.workers[0].state.executing and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not who.waits(first, worker)
        with pytest.warns(HaloflowWarning, match="is at other tasks, or paused"):
            assert who.waits(second, worker)
        assert second.result() is None
        assert not who.waits(second, worker)
        second.release()
        for where in (worker, drive.ANY, drive.ALONE):  # of which nobody has ever heard
            assert not who.waits(unknown(second), where)


def unknown(future: Any) -> Any:
    return type("Unknown", (), {"key": f"{future.key}-lost"})
