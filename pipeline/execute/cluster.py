"""The Dask executor: tasks go to ``distributed`` through a bounded window of futures, on any scheduler.

The plan reaches each worker once, by a plugin, which the scheduler also gives to workers that come later; a task is
three small numbers. So memory on client and scheduler does not grow with the image.
"""

import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin

from pipeline.errors import ClusterError, RunError
from pipeline.execute.serial import explain
from pipeline.execute.task import Done, Failed, Outcome, run_task
from pipeline.planning import ImagePlan, Plan

AHEAD = 2
"""Futures per worker thread: one that runs and one that waits."""

RETRIES = 2
"""Times a task that raises is run again, so that a passing fault of storage is no failure."""

WAIT = 30
"""Seconds without any worker, or without a scheduler, after which a run ends."""

AGAIN = "what was written is not complete: start again with --overwrite"

_PLANS: dict[str, tuple[ImagePlan, ...]] = {}


class _Hold(WorkerPlugin):  # type: ignore[misc]  # distributed carries no types
    """Keeps a plan on a worker as long as the run lasts."""

    def __init__(self, run: str, images: tuple[ImagePlan, ...]) -> None:
        self.name = f"haloflow-{run}"
        self.run = run
        self.images = images

    def setup(self, worker: Any) -> None:
        del worker
        _PLANS[self.run] = self.images

    def teardown(self, worker: Any) -> None:
        del worker
        _PLANS.pop(self.run, None)


def _work(run: str, image: int, block: int) -> Done:
    return run_task(_PLANS[run][image], image, block)


@contextmanager
def connect(cluster: str, workers: int | None, memory: int) -> Iterator[Client]:
    """Give a client of ``local`` processes, in-process ``threads``, or the scheduler at an address.

    Raises `ClusterError` where there is none.
    """
    if workers is not None and workers < 1:
        raise ClusterError(f"workers {workers}: expected at least 1")
    count = workers or os.cpu_count() or 1
    if cluster in ("local", "threads"):
        processes = cluster == "local"
        try:
            made = LocalCluster(
                n_workers=count if processes else 1,
                threads_per_worker=1 if processes else count,
                processes=processes,
                # A scheduler is open to whoever reaches it: loopback, or no socket of its own.
                host="127.0.0.1" if processes else None,
                dashboard_address="127.0.0.1:0",
                memory_limit=memory if processes else 0,
                silence_logs=logging.ERROR,
            )
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(f"the local cluster could not start: {explain(error)}") from None
        with made, Client(made) as client:
            yield client
        return
    try:
        client = Client(cluster, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"--cluster {cluster}: no scheduler answers there ({explain(error)}); expected local, threads, serial or "
            "an address such as tcp://host:8786"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise ClusterError(f"--cluster {cluster}: the scheduler has no workers, after {WAIT} s") from None
        yield client


def run(plan: Plan, client: Client) -> Iterator[Outcome]:
    """Run every task of a plan on a cluster, a few futures a worker at a time; gives outcomes as they come."""
    run_id = uuid.uuid4().hex
    plugin = _Hold(run_id, plan.images)
    tasks = ((number, block) for number, image in enumerate(plan.images) for block in range(len(image.grid)))
    try:
        client.register_plugin(plugin)
        yield from _drive(client, run_id, tasks)
    except OSError as error:  # distributed's own errors of a lost connection are of this kind
        raise RunError(f"the connection to the scheduler was lost ({explain(error)}); {AGAIN}") from None
    finally:
        # Not there if the run ended before it was sent; gone with the scheduler.
        with suppress(OSError, ValueError):
            if client.status == "running":
                client.unregister_worker_plugin(plugin.name)


def _drive(client: Client, run_id: str, tasks: Iterator[tuple[int, int]]) -> Iterator[Outcome]:
    places: dict[Any, tuple[int, int]] = {}
    ended: SimpleQueue[Any] = SimpleQueue()

    def submit(count: int) -> None:
        for image, block in islice(tasks, count):
            key = f"haloflow-{run_id}-{image}-{block}"
            future = client.submit(_work, run_id, image, block, key=key, pure=False, retries=RETRIES)
            places[future] = (image, block)
            future.add_done_callback(ended.put)

    submit(AHEAD * max(1, sum(client.nthreads().values())))
    while places:
        future = _next(client, ended)
        image, block = places.pop(future)
        outcome: Outcome
        if future.status == "finished":
            outcome = future.result()
        elif future.status == "error":
            outcome = Failed(image, block, explain(future.exception()))
        else:
            raise RunError(f"the scheduler was lost or restarted; {AGAIN}")
        del future
        submit(1)
        yield outcome


def _next(client: Client, ended: "SimpleQueue[Any]") -> Any:
    """Wait for a future to end; raises `RunError` where there is nobody left who could end it."""
    alone = time.monotonic()
    while True:
        try:
            return ended.get(timeout=1.0)
        except Empty:
            if client.status not in ("running", "connecting"):
                raise RunError(f"the scheduler was lost; {AGAIN}") from None
            if client.status == "running" and client.nthreads():
                alone = time.monotonic()
            elif time.monotonic() - alone > WAIT:
                raise RunError(f"there has been no worker for {WAIT} s; {AGAIN}") from None
