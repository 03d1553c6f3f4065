"""Workers of this machine: processes on loopback, or threads of this process."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import dask
from distributed import Client, LocalCluster
from pydantic import Field

from pipeline.clusters.base import LOOPBACK, Manager
from pipeline.errors import ClusterError, explain

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.scheduler.no-workers-timeout": "120s",
}
"""How a cluster of our own is set.

Its workers' profiles and 50 wake-ups a second take 6 % of two cores; and no task may wait for ever for a worker.
"""


class Local(Manager):
    """A process a worker, on this machine."""

    type: Literal["local"]
    workers: int | None = Field(None, ge=1, description="how many processes (default: one a core)")

    @contextmanager
    def client(self, workers: int | None, memory: int) -> Iterator[Client]:
        """Start the workers; raises `ClusterError` where they do not start."""
        with _started(workers or self.workers, memory, processes=True) as client:
            yield client


class Threads(Manager):
    """A thread a worker, in this process."""

    type: Literal["threads"]
    workers: int | None = Field(None, ge=1, description="how many threads (default: one a core)")

    @contextmanager
    def client(self, workers: int | None, memory: int) -> Iterator[Client]:
        """Start the workers; raises `ClusterError` where they do not start."""
        with _started(workers or self.workers, memory, processes=False) as client:
            yield client


def _hint() -> str:
    """Return what to do where a worker's process ends at once; a script may be the reason, the command is not."""
    if multiprocessing.current_process().daemon:
        return "within a Dask task no processes can be started; take the client that there is, or cluster='threads'"
    if "pipeline.cli" in sys.modules:
        return "was a worker killed, for want of memory? Try again, or with --workers 1"
    return (
        "a Python script needs its work below \"if __name__ == '__main__':\", as each worker is a process that reads "
        "it again; or take cluster='threads'"
    )


@contextmanager
def _started(workers: int | None, memory: int, *, processes: bool) -> Iterator[Client]:
    count = workers or os.cpu_count() or 1
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
        hint = f" ({_hint()})" if isinstance(error, RuntimeError) else ""
        raise ClusterError(f"the local cluster could not start: {explain(error)}{hint}") from None
    with dask.config.set(LOOPBACK), made, Client(made) as client:
        yield client
