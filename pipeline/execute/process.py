"""How a process is set while runs are at work in it, and that it is as before when the last of them has ended.

A worker may serve several runs at a time, and several workers may be threads of one process: what one of them sets and
puts back would be what another one found.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from typing import Any

import zarr

from pipeline.execute.memory import give_freed_memory_back, keep_freed_memory
from pipeline.forecast import IN_FLIGHT


class Setting:
    """A change of the process that the first of several users makes, and that the last one takes back."""

    def __init__(self, change: Callable[[], AbstractContextManager[Any]]) -> None:
        self._change = change
        self._lock = Lock()
        self._users = 0
        self._made = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """See that the change is made, until all who hold it have left."""
        with self._lock:
            if not self._users:
                self._made.enter_context(self._change())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._made.close()


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

KEPT_MEMORY = Setting(_kept)
"""What is freed stays with the process, to be used again."""

DEAF = Setting(_deaf)
"""SIGINT does nothing; `ValueError` where it is not the main thread that asks for it."""
