"""Workers that hang: they are given up after a deadline, what they had goes to others, and nobody waits for ever."""

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, WorkerPlugin

import pipeline
from pipeline.errors import RunError
from pipeline.execute import cluster, drive, fetch
from pipeline.execute.drive import Drive
from pipeline.execute.feed import Feed
from pipeline.execute.task import Done, Outcome
from pipeline.geometry import Interval
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


def outcomes_of(small: Path, markers: list[Path]) -> Iterator[Outcome]:
    plan = pipeline.plan(pipeline.load("config.yaml", ["output.chunks=1"]))
    image = plan.images[0]
    image = replace(image, grid=replace(image.grid, step=(2, 2)))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as made,
        Client(made) as client,
    ):
        client.register_plugin(_Stopping(77, markers), name="stopping")
        try:
            yield from cluster.run(Feed.of([image]), client, Segments(Place.of(str(small / "none")), "", 1))
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
    monkeypatch.setattr(drive, "WAIT", 3)
    with pytest.raises(RunError, match=r"no worker that answers \(2 hang\) .* go on with --resume"):
        list(outcomes_of(small, [small / "one", small / "two"]))
