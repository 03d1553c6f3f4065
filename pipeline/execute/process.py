"""How a process is set while runs are at work in it, and that it is as before when the last of them has ended.

A worker may serve several runs at a time, and several workers may be threads of one process: what one of them sets and
puts back would be what another one found.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock, Timer
from typing import Any

import zarr

from pipeline.execute.memory import give_freed_memory_back, keep_freed_memory
from pipeline.forecast import IN_FLIGHT


class Setting:
    """A change of the process that the first of several users makes, and that is taken back when the last has left.

    Parameters
    ----------
    change
        Makes it, and takes it back.
    lasts
        Seconds for which it stays when nobody needs it, for who comes next.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[Any]], lasts: float = 0.0) -> None:
        self._change = change
        self._lasts = lasts
        self._lock = Lock()
        self._users = 0
        self._uses = 0
        self._made: AbstractContextManager[Any] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """See that the change is made, until all who hold it have left."""
        with self._lock:
            if self._made is None:
                made = self._change()
                made.__enter__()
                self._made = made
            self._users += 1
            self._uses += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            if self._lasts:
                later = Timer(self._lasts, self._end, [self._uses])
                later.daemon = True
                later.start()
            else:
                self._end(self._uses)

    def _end(self, uses: int) -> None:
        """Take the change back, if nobody has needed it since so many uses."""
        with self._lock:
            if self._made and not self._users and uses == self._uses:
                made, self._made = self._made, None
                made.__exit__(None, None, None)


@contextmanager
def _kept() -> Iterator[None]:
    keep_freed_memory()
    try:
        yield
    finally:
        give_freed_memory_back()


@contextmanager
def _deaf() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


FEW_AT_ONCE = Setting(lambda: zarr.config.set({"async.concurrency": IN_FLIGHT}))
"""How zarr shares the processor while tasks run: see `IN_FLIGHT`."""

KEPT_MEMORY = Setting(_kept, lasts=1.0)
"""What is freed stays with the process, to be used again: by one run, and by the next, which would begin with some 20
ms of page faults."""

DEAF = Setting(_deaf)
"""SIGINT does nothing; `ValueError` where it is not the main thread that asks for it."""
