"""Runs with the caller's own client: it stays as it was, with its workers, however a run ends."""

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import yaml
import zarr
from distributed import Client, LocalCluster

import pipeline
from pipeline.agreement import agree
from pipeline.errors import ClusterError, RunError
from pipeline.execute import stock
from pipeline.execute.process import Setting
from pipeline.execute.watching import Event, Progress

PLANES = 60

MANY = {
    "input": {"images": "planes.zarr"},
    "features": {"bump": {"generate": "gaussian", "size": 31}},
    "layers": [{"type": "convolution", "features": ["bump"]}],
    "output": {"store": "many.zarr", "chunks": 128},
}
"""A run of a task a plane."""


@pytest.fixture
def planes(small: Path) -> Path:
    shape = (PLANES, 200, 200)
    stored = zarr.create_array(
        "planes.zarr", shape=shape, chunks=(1, 200, 200), dtype="uint8", dimension_names=("z", "y", "x")
    )
    stored[:] = np.random.default_rng(6).integers(0, 256, shape)
    return small


def _changed() -> tuple[int, bool]:
    """Say up to which level a worker keeps silent, and whether Ctrl-C does nothing to it."""
    return logging.root.manager.disable, signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_client_serves_one_run_after_another_and_stays_open(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with LocalCluster(n_workers=1, dashboard_address=":0") as made, Client(made) as client:
        for again in (False, True):
            report = pipeline.run(plan, client, overwrite=again)
            assert report.complete
            assert report.cluster == made.scheduler_address
        # Workers of somebody else still say what they have to say, and end on Ctrl-C.
        (changed,) = client.run(_changed).values()
        assert changed == (logging.NOTSET, False)
        assert client.submit(sum, [1, 2]).result() == 3
        with pytest.raises(ClusterError, match="workers: how many there are is up to who started the client's cluster"):
            pipeline.run(plan, client, workers=2, overwrite=True)
    with pytest.raises(ClusterError, match="expected a client that is connected; this one is closed"):
        pipeline.run(plan, client, overwrite=True)
    assert pipeline.verify(pipeline.load("config.yaml")).passed  # what was refused changed nothing


def test_a_client_asks_each_of_its_workers_once_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as made, Client(made) as client:
        agree(client, "mine", client.nthreads())
        monkeypatch.setattr(client, "run", Mock(side_effect=OSError("asked again")))
        agree(client, "mine", client.nthreads())
        made.scale(2)
        client.wait_for_workers(2)
        with pytest.raises(ClusterError, match="asked again"):
            agree(client, "mine", client.nthreads())


def test_a_client_of_an_event_loop_is_refused(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))

    async def ask() -> None:
        async with Client(processes=False, asynchronous=True, dashboard_address=":0") as client:
            with pytest.raises(ClusterError, match="expected a client that waits; this one is asynchronous"):
                pipeline.run(plan, client)

    asyncio.run(ask())
    assert not Path("maps.zarr").exists()


def test_an_adaptive_cluster_without_workers_starts_one(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as made, Client(made) as client:
        made.adapt(minimum=0, maximum=1, interval="200ms")
        assert pipeline.run(plan, client).complete
        assert not client.futures


def test_what_is_no_cluster_is_refused(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as made,
        pytest.raises(ClusterError, match=r"cluster: .* or a distributed.Client; found a LocalCluster"),
    ):
        pipeline.run(plan, made)
    with pytest.raises(ClusterError, match="found a NoneType"):
        pipeline.run(plan, None)
    assert not Path("maps.zarr").exists()


def test_workers_of_one_process_leave_zarrs_settings_as_they_were(planes: Path) -> None:
    before = zarr.config.get("async.concurrency")
    both = threading.Barrier(2)
    reports: list[pipeline.Report] = []

    def work(name: str) -> None:
        begun: list[Event] = []

        def meet(event: Event) -> None:
            begun.append(event)
            if len(begun) == 3:  # two runs that overlap
                both.wait(30)

        plan = pipeline.plan(pipeline.load(MANY, [f"output.store={name}.zarr"]))
        reports.append(pipeline.run(plan, client, progress=meet))

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as made,
        Client(made) as client,
    ):
        runs = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert [report.complete for report in reports] == [True, True]
        assert zarr.config.get("async.concurrency") == before


def test_a_setting_lasts_as_long_as_anybody_holds_it() -> None:
    told: list[str] = []

    class Change:
        def __enter__(self) -> None:
            told.append("made")

        def __exit__(self, *error: object) -> None:
            told.append("taken back")

    setting = Setting(Change)
    for _ in range(2):
        first, second = setting.held(), setting.held()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert told == ["made"]
        second.__exit__(None, None, None)
        assert told == ["made", "taken back"]
        told.clear()


def test_what_lasts_for_a_while_serves_who_comes_next() -> None:
    told: list[str] = []
    ended = threading.Event()

    @contextmanager
    def change() -> Iterator[None]:
        told.append("made")
        yield
        told.append("taken back")
        ended.set()

    setting = Setting(change, lasts=0.5)
    for _ in range(2):
        for _ in range(3):
            with setting.held():
                pass
            assert told == ["made"]
        with setting.held():
            time.sleep(1)  # those who have left do not take back what another one needs
            assert told == ["made"]
        assert ended.wait(60)
        assert told == ["made", "taken back"]
        told.clear()
        ended.clear()


def _kept() -> int:
    """Return the bytes that this process keeps of 200 MB that it takes in small arrays and frees."""
    process = psutil.Process()
    before = process.memory_info().rss
    arrays = [np.ones(2**18) for _ in range(100)]
    del arrays
    return int(process.memory_info().rss - before)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_worker_gives_memory_back_as_before(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with LocalCluster(n_workers=1, dashboard_address=":0") as made, Client(made) as client:
        assert pipeline.run(plan, client).complete
        until = time.monotonic() + 60
        while sum(client.run(_kept).values()) >= 2**26:
            assert time.monotonic() < until
            time.sleep(0.1)


def _of_runs(dask_worker: Any) -> list[str]:
    return [name for name in dask_worker.plugins if name.startswith("haloflow")]


def test_a_run_that_breaks_off_leaves_nothing_with_the_client(planes: Path) -> None:
    plan = pipeline.plan(pipeline.load(MANY))

    def fail(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 4:
            raise ZeroDivisionError

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made, Client(made) as client:
        with pytest.raises(ZeroDivisionError):
            pipeline.run(plan, client, progress=fail)
        assert not client.futures
        assert list(client.run(_of_runs).values()) == [[], []]
        assert pipeline.run(plan, client, resume=True).complete


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("batch", [0.0, 0.5])
def test_a_client_that_is_closed_meanwhile_ends_its_run(
    planes: Path, monkeypatch: pytest.MonkeyPatch, own: bool, batch: float
) -> None:
    """With a thread of its own for its messages, and with that of the cluster; with a future a task, and fewer."""
    monkeypatch.setattr(stock, "BATCH", batch)
    plan = pipeline.plan(pipeline.load(MANY))
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as made,
        # As a default one, closed so, it would leave Dask's settings as if it were still there.
        Client(made.scheduler_address if own else made, set_as_default=False) as client,
    ):

        def close(event: Event) -> None:
            if isinstance(event, Progress) and event.done == 4:
                client.close()

        with pytest.raises(RunError, match="go on with --resume"):
            pipeline.run(plan, client, progress=close)


INTERRUPTED = """
import os, signal, sys
from distributed import Client, LocalCluster
import pipeline

def interrupt(event):
    if getattr(event, "done", 0) == 4:
        os.killpg(0, signal.SIGINT)  # as a terminal does it, and a notebook

def is_deaf():
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN

if __name__ == "__main__":
    plan = pipeline.plan(pipeline.load("many.yaml"))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made, Client(made) as client:
        workers = set(client.run(os.getpid).values())
        try:
            pipeline.run(plan, client, progress=interrupt)
        except KeyboardInterrupt:
            print("interrupted")
        assert set(client.run(os.getpid).values()) == workers
        assert not any(client.run(is_deaf).values())
        report = pipeline.run(plan, client, resume=True)
        print(report.complete, report.resumed > 0)
"""


def test_ctrl_c_ends_a_run_and_leaves_the_client_its_workers(planes: Path) -> None:
    Path("many.yaml").write_text(yaml.safe_dump(MANY))
    Path("interrupted.py").write_text(INTERRUPTED)
    child = subprocess.run(
        [sys.executable, "interrupted.py"],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
        check=False,
    )
    assert child.stdout.splitlines() == ["interrupted", "True True"], child.stderr
    assert child.returncode == 0
