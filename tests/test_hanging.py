"""Workers that hang or came late and differ get no more work, what they had goes to others; nobody waits for ever."""

import importlib.metadata
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster, WorkerPlugin

import pipeline
from pipeline import agreement
from pipeline.errors import HaloflowWarning, RunError
from pipeline.execute import cluster, drive, fetch, roster, stock
from pipeline.execute.drive import Drive
from pipeline.execute.feed import Feed
from pipeline.execute.task import Done, Outcome
from pipeline.geometry import Interval
from pipeline.planning import ImagePlan
from pipeline.storage.place import Place
from pipeline.storage.records import Segments


class _Stopping(WorkerPlugin):
    """Tasks do nothing, and the process that comes to one of them stops there, once for each marker that is left."""

    def __init__(self, block: int, markers: list[Path]) -> None:
        self.block = block
        self.markers = markers

    def setup(self, worker: object) -> None:
        del worker

        def attempt(plan: object, image: int, block: int, cache: object, segment: object) -> Done:
            left = [marker for marker in self.markers if not marker.exists()]
            if block == self.block and left:
                left[0].write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGSTOP)
            return Done(image, block, 1e-4, 1, 1, ((0.0, 1.0),))

        cluster.attempt = attempt


def cut() -> ImagePlan:
    """Return a plan of some hundreds of small tasks."""
    image = pipeline.plan(pipeline.load("config.yaml", ["output.chunks=1"])).images[0]
    return replace(image, grid=replace(image.grid, step=(2, 2)))


def outcomes_of(small: Path, markers: list[Path]) -> Iterator[Outcome]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as made,
        Client(made) as client,
    ):
        client.register_plugin(_Stopping(77, markers), name="stopping")
        try:
            yield from cluster.run(Feed.of([cut()]), client, Segments(Place.of(str(small / "none")), "", 1))
        finally:
            for marker in markers:
                if marker.exists():
                    os.kill(int(marker.read_text()), signal.SIGKILL)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    monkeypatch.setattr(drive, "LEAST", 3.0)
    monkeypatch.setattr(fetch, "PATIENCE", 1.0)
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)


@pytest.mark.usefixtures("soon")
def test_what_a_stopped_worker_had_is_done_by_others(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: defaultdict[Interval, list[str]] = defaultdict(list)
    submit = Drive._submit

    def noted(self: Drive, batch: Interval, worker: str = drive.ANY, tries: int = 0) -> None:
        sent[batch].append(worker)
        submit(self, batch, worker, tries)

    monkeypatch.setattr(Drive, "_submit", noted)
    outcomes = list(outcomes_of(small, [small / "one"]))
    assert (small / "one").exists()
    # Of the other worker nothing was sent again: what it told was fetched, whoever else did not answer.
    assert len({workers[0] for workers in sent.values() if drive.ANY in workers}) == 1
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    blocks = [outcome.block for outcome in outcomes]
    assert sorted(blocks) == list(range(len(blocks)))
    assert len(blocks) > 200


@pytest.mark.long
@pytest.mark.usefixtures("soon")
def test_where_all_workers_hang_the_run_ends_and_says_how_to_go_on(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "WAIT", 3)
    with pytest.raises(
        RunError, match=r"no worker of use \(2 hang, 0 are of other versions\) for 3 s; .* go on with --resume"
    ):
        list(outcomes_of(small, [small / "one", small / "two"]))


class _Other(WorkerPlugin):
    """Tasks tell in which process they run, and all workers but the first say that they have another NumPy."""

    def setup(self, worker: Any) -> None:
        def attempt(plan: object, image: int, block: int, cache: object, segment: object) -> Done:
            time.sleep(0.01)
            return Done(image, block, 0.01, os.getpid(), 1, ((0.0, 1.0),))

        def version(name: str) -> str:
            return "9.9" if name == "numpy" else version_of(name)

        cluster.attempt = attempt
        if worker.name != 0:
            agreement.version = importlib.metadata.version = version


@pytest.mark.filterwarnings("always::pipeline.errors.HaloflowWarning")
def test_a_worker_that_comes_late_with_other_versions_does_no_work(
    small: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "BATCH", 0.02)  # so that there is work left for it
    outcomes: list[Outcome] = []
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as made,
        Client(made) as client,
    ):
        client.register_plugin(_Other(), name="other")
        for outcome in cluster.run(Feed.of([cut()]), client, Segments(Place.of(str(small / "none")), "", 1)):
            if not outcomes:
                made.scale(2)
                client.wait_for_workers(2)
            outcomes.append(outcome)
    (told,) = [str(warning.message) for warning in recwarn if warning.category is HaloflowWarning]
    assert re.fullmatch(r"the worker tcp://\S* has numpy 9\.9; here it is \S*: it gets no work", told)
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    assert sorted(outcome.block for outcome in done) == list(range(len(outcomes)))
    assert len(outcomes) > 200
    assert len({outcome.bytes_read for outcome in done}) == 1
