"""The Dask executor: tasks go to ``distributed`` through a bounded window of futures, on any scheduler.

The plan reaches each worker once, by a plugin, which the scheduler also gives to workers that come later; a task is
three small numbers. So memory on client and scheduler does not grow with the image.
"""

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import distributed
from distributed import Client, LocalCluster, WorkerPlugin, as_completed

from pipeline.errors import ClusterError
from pipeline.execute.serial import explain
from pipeline.execute.task import Done, Failed, Outcome, run_task
from pipeline.planning import ImagePlan, Plan

AHEAD = 2
"""Futures per worker thread: one that runs and one that waits."""

RETRIES = 2
"""Times a task that raises is run again, so that a passing fault of storage is no failure."""

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
    count = workers or os.cpu_count() or 1
    if cluster in ("local", "threads"):
        processes = cluster == "local"
        try:
            made = LocalCluster(
                n_workers=count if processes else 1,
                threads_per_worker=1 if processes else count,
                processes=processes,
                # A scheduler is open to whoever reaches it: loopback, or no socket at all.
                host="127.0.0.1" if processes else None,
                dashboard_address=None,
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
        yield client


def run(plan: Plan, client: Client) -> Iterator[Outcome]:
    """Run every task of a plan on a cluster, a few futures a worker at a time; gives outcomes as they come."""
    run_id = uuid.uuid4().hex
    plugin = _Hold(run_id, plan.images)
    client.register_plugin(plugin)
    tasks = ((number, block) for number, image in enumerate(plan.images) for block in range(len(image.grid)))
    try:
        yield from _drive(client, run_id, tasks)
    finally:
        if client.status == "running":
            client.unregister_worker_plugin(plugin.name)


def _drive(client: Client, run_id: str, tasks: Iterator[tuple[int, int]]) -> Iterator[Outcome]:
    places: dict[Any, tuple[int, int]] = {}

    def submit(count: int) -> list[Any]:
        futures = []
        for image, block in islice(tasks, count):
            key = f"haloflow-{run_id}-{image}-{block}"
            future = client.submit(_work, run_id, image, block, key=key, pure=False, retries=RETRIES)
            places[future] = (image, block)
            futures.append(future)
        return futures

    window = AHEAD * max(1, sum(client.nthreads().values()))
    completed = as_completed(submit(window))
    for future in completed:
        image, block = places.pop(future)
        error = future.exception() if future.status != "finished" else None
        if future.status == "cancelled":
            error = distributed.client.FutureCancelledError(future.key, "lost by the scheduler")
        outcome: Outcome = Failed(image, block, explain(error)) if error else future.result()
        del future
        completed.update(submit(1))
        yield outcome
