"""What is sent to workers: in which order, how much at a time, and from where."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from distributed import Client, LocalCluster

import pipeline
from pipeline.errors import RunError
from pipeline.execute import cluster, drive, stock
from pipeline.execute.feed import Feed, Work
from pipeline.execute.roster import Roster
from pipeline.execute.task import Done, Outcome
from pipeline.storage.place import Place
from pipeline.storage.records import Segments
from tests.test_cluster import cut


def test_blocks_are_made_in_the_order_of_the_walk(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as that can be with two threads; otherwise their cache no longer has what the next block needs."""
    monkeypatch.setattr(stock, "BATCH", 0.0)  # a future a task
    monkeypatch.setattr(drive, "AHEAD", 8)
    made, attempt = list[int](), cluster.attempt

    def noted(plan: object, number: int, block: int, *more: object) -> object:
        made.append(block)
        return attempt(plan, number, block, *more)

    monkeypatch.setattr(cluster, "attempt", noted)
    plan = cut(pipeline.plan(pipeline.load("config.yaml", ["output.chunks=1"])), 4)
    assert pipeline.run(plan, "threads", workers=2).complete
    assert len(made) == plan.tasks > 30
    assert max(abs(block - place) for place, block in enumerate(made)) <= 3


def test_first_batches_are_sent_from_the_clients_own_thread(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they go in one message: of what another thread sends, all but the first waits 10 ms."""
    sent, submit = list[bool](), Client.submit

    def noted(self: Client, *words: object, **named: object) -> object:
        sent.append(self.asynchronous)
        return submit(self, *words, **named)

    monkeypatch.setattr(Client, "submit", noted)
    assert pipeline.run(cut(pipeline.plan(pipeline.load("config.yaml")), 8), "threads", workers=2).complete
    assert sent[:2] == [True, True]


def test_futures_are_bounded_and_a_failure_is_one_task(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pipeline.load("config.yaml", ["output.chunks=1"])
    plan = cut(pipeline.plan(job), 8)
    (small / "image.zarr/c/0/2/2").write_bytes(b"not a chunk")
    most = 0
    submit = Client.submit

    def counted(self: Client, *words: object, **named: object) -> object:
        nonlocal most
        if not self.asynchronous:  # called from another thread
            self.sync(asyncio.sleep, 0)  # what was given back is forgotten on the client's own thread
        most = max(most, len(self.futures) + 1)
        return submit(self, *words, **named)

    monkeypatch.setattr(Client, "submit", counted)
    report = pipeline.run(plan, "threads", workers=2)
    assert plan.tasks > 8
    assert most <= 2 * 2 * drive.AHEAD + 1  # on their way, and to be fetched
    assert 0 < len(report.failures) < plan.tasks
    assert report.done == plan.tasks - len(report.failures)


def test_a_client_that_is_closed_before_the_first_message_ends_its_run(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as made:
        client = Client(made, set_as_default=False)
        client.close()
        with pytest.raises(RunError, match=r"was lost \(the client is closed\); .* go on with --resume"):
            list(cluster.run(Feed.of(plan.images), client, Segments(Place.of(str(small / "none")), "", 1)))


def nothing(plan: object, number: int, block: int, *more: object) -> Done:
    """Do nothing, instead of a task."""
    return Done(number, block, 0.0, 0, 0, ())


@contextmanager
def driven(folder: Path, works: Iterator[Work | None]) -> Iterator[Iterator[Outcome]]:
    """Give the outcomes of works that one worker makes."""
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as made, Client(made) as client:
        yield cluster.run(Feed(works), client, Segments(Place.of(str(folder / "none")), "", 1))


@pytest.mark.parametrize("every", [1, 100])
def test_outcomes_are_told_while_there_are_more_images_to_look_at(
    small: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Of tasks so short that thousands of images are looked at ahead; and where there is nothing to make of most."""
    (image,) = pipeline.plan(pipeline.load("config.yaml")).images
    ended, looked = Event(), 0

    def noted(*given: Any) -> Done:
        ended.set()
        return nothing(*given)

    def works() -> Iterator[Work | None]:
        nonlocal looked
        for looked in range(1, 401):
            if looked > stock.LOT:
                assert ended.wait(60)
                time.sleep(drive.LAG / stock.LOT)
            yield Work(looked, image, [0]) if looked <= stock.LOT or looked % every == 0 else None

    monkeypatch.setattr(cluster, "attempt", noted)
    with driven(small, works()) as outcomes:
        next(outcomes)
        assert looked <= 5 * stock.LOT
        assert 1 + sum(1 for _ in outcomes) == sum(n <= stock.LOT or n % every == 0 for n in range(1, 401))
    assert looked == 400


def test_a_batch_that_has_ended_is_not_late_however_long_images_are_looked_at(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = pipeline.plan(pipeline.load("config.yaml")).images
    late = list[str]()
    for name, seconds in (("LEAST", 0.5), ("LATE", 0.01), ("LOOK", 0.01)):
        monkeypatch.setattr(drive, name, seconds)
    monkeypatch.setattr(stock, "LONG", 60)
    monkeypatch.setattr(stock, "LOT", 16)
    monkeypatch.setattr(cluster, "attempt", nothing)
    monkeypatch.setattr(Roster, "hang", lambda _, future, worker: late.append(future.status) or worker)

    def works() -> Iterator[Work]:
        for number in range(64):
            time.sleep(0.05)
            yield Work(number, image, [0])

    with driven(small, works()) as outcomes:
        assert sum(1 for _ in outcomes) == 64
    assert not late
