"""zarr-python's threads in a worker, set for one contestant and given back after it.

`threading.max_workers` counts only before zarr's first use in a process, and the workers are shared by all.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zarr.core import sync

_KEPT: list[Any] = []


def lend(count: int) -> None:
    """Let zarr use ``count`` threads in this process."""
    loop = _loop()
    _KEPT.append(loop._default_executor or ThreadPoolExecutor())  # type: ignore[attr-defined]  # noqa: SLF001 - no getter
    loop.set_default_executor(ThreadPoolExecutor(count))


def give_back() -> None:
    """Let zarr use again what it used before."""
    if _KEPT:
        loop = _loop()
        loop._default_executor.shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - no getter
        loop.set_default_executor(_KEPT.pop())


def _loop() -> asyncio.AbstractEventLoop:
    return sync._get_loop()  # noqa: SLF001 - zarr has one loop a process and no public name for it
