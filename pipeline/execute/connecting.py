"""Clusters: processes or threads of this machine, or a scheduler at an address."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from pipeline.errors import ClusterError
from pipeline.execute.serial import explain

WAIT = 30
"""Seconds that a scheduler may be without any worker at the beginning."""

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.scheduler.no-workers-timeout": "120s",
}
"""How a cluster of our own is set.

Its workers' profiles and 50 wake-ups a second take 6 % of two cores; and no task may wait for ever for a worker.
"""


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
            with dask.config.set(QUIET):
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
