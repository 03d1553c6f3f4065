"""Which workers of a cluster get work: those that are there, but for those that hang or are not as this process."""

import asyncio
import time
import warnings
from typing import Any

from distributed import Client

from pipeline.agreement import latecomers
from pipeline.errors import AGAIN, HaloflowWarning, RunError
from pipeline.execute.fetch import PATIENCE

WAITING = ("waiting", "ready", "constrained")
"""The states of a task that its worker knows of and has not begun."""

WAIT = 30
"""Seconds without any worker, or without a scheduler, after which a run ends."""


def _state(key: str, dask_worker: Any) -> str | None:
    """Return the state of a task at a worker, None where that has never heard of it; distributed gives the worker."""
    task = dask_worker.state.tasks.get(key)
    return None if task is None else str(task.state)


class Roster:
    """Who gets work, and how many threads each of them has.

    Who hangs is shunned until the future that it hangs with has ended there; who came late and has other versions, for
    good.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.threads: dict[str, int] = {}
        self._shunned: set[str] = set()
        self._strangers: set[str] = set()
        """Those with other versions."""
        self.signs: dict[Any, str] = {}
        """Of workers that hang one future each: where it ends, its worker does not hang any more."""
        self.looked = self._staffed = time.monotonic()
        self._wanted: Any = None
        """Work for whoever comes, while there is nobody."""
        self._busy: set[str] = set()

    @property
    def shuns(self) -> bool:
        """Whether there is anybody who gets no work."""
        return bool(self._shunned)

    def look(self) -> set[str]:
        """Return all workers that there are; raises `RunError` where for too long there has been none to work."""
        self.looked = time.monotonic()
        if self._client.status not in ("running", "connecting"):
            raise RunError(f"the scheduler was lost; {AGAIN}")
        there = dict(self._client.nthreads()) if self._client.status == "running" else {}
        self._shunned &= there.keys()
        self.threads = {worker: threads for worker, threads in there.items() if worker not in self._shunned}
        self._ask_for_workers()
        if self.threads:
            self._staffed = self.looked
        elif self.looked - self._staffed > WAIT:
            others = len(self._shunned & self._strangers)
            hang = f" of use ({len(self._shunned) - others} hang, {others} are of other versions)" if self.shuns else ""
            raise RunError(f"there has been no worker{hang} for {WAIT} s; {AGAIN}")
        return {*there}

    def _ask_for_workers(self) -> None:
        """See that there is work as long as there is no worker: an adaptive cluster starts none for nothing."""
        if not self.threads and self._wanted is None and self._client.status == "running":
            self._wanted = self._client.submit(int, pure=False)
        elif self.threads and self._wanted is not None:
            self._wanted.release()
            self._wanted = None

    def end(self) -> None:
        """Let the scheduler forget what is asked of it beside the run's work."""
        for future in (*self.signs, *([self._wanted] if self._wanted else [])):
            future.release()

    def part(self) -> bool:
        """Give no more work to workers that are not as this process; say whether there are any."""
        found = latecomers(self._client, self.threads, PATIENCE)
        for worker, others in found.items():
            warnings.warn(f"the worker {worker} {', '.join(others)}: it gets no work", HaloflowWarning, stacklevel=1)
        self._strangers |= found.keys()
        self._shun(*found)
        return bool(self._strangers & self._shunned)

    def waits(self, future: Any, worker: str) -> bool:
        """Say whether who has a future, which was meant for ``worker``, answers that it has not begun it."""
        where = self._where(future, worker)

        async def ask() -> Any:
            asked = self._client.run(_state, future.key, workers=[where], on_error="return")
            return (await asyncio.wait_for(asked, PATIENCE)).get(where)

        if where not in self.threads:
            return False
        try:
            waits = self._client.sync(ask) in WAITING
        except (OSError, ValueError, TimeoutError):  # gone, or hangs
            return False
        if waits and where not in self._busy:
            self._busy.add(where)
            told = "is at other tasks, or paused, for want of memory: it is waited for"
            warnings.warn(f"the worker {where} {told}", HaloflowWarning, stacklevel=1)
        return waits

    def hang(self, future: Any, worker: str) -> str:
        """Take who is at a future, which was meant for ``worker``, for one that hangs; return its address."""
        where = self._where(future, worker)
        if where in self.threads:
            self._shun(where)
            self.signs[future] = where
        return where

    def _where(self, future: Any, worker: str) -> str:
        """Return who has a future: it need not be whom it was sent to, as the scheduler gives it to who looks idle."""
        return next((w for w, keys in self._client.processing().items() if future.key in keys), worker)

    def recover(self, future: Any) -> None:
        """Give work again to a worker that has ended the future with which it seemed to hang, if one has."""
        if worker := self.signs.pop(future, None):
            self._shunned.discard(worker)
            future.release()

    def _shun(self, *workers: str) -> None:
        self._shunned |= set(workers)
        self.threads = {worker: n for worker, n in self.threads.items() if worker not in self._shunned}
