"""How a worker's process handles memory that is freed and asked for again."""

import ctypes
import os
from contextlib import suppress

_TRIM, _MAP = -1, -3
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD`` of glibc's ``mallopt``."""

KEPT = 2**28
"""Freed bytes at the top of the heap that stay with the process."""

MAPPED = 2**25
"""Bytes from which on an array has pages of its own, which are given back at once: the most that glibc takes."""

USUAL = 2**17
"""glibc's own value of both, where the environment says no other."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees, to use it again: tiles and chunks come and go many times a second.

    Dask starts its workers so that freed memory goes back to the system at once. The next array then waits for the
    system to clear its pages: filling a megabyte goes at 1 GB/s where memory that is used again takes 30 GB/s. A
    worker's peak is the same, and the plan bounds it. Other C libraries than glibc are left as they are.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM, KEPT)
        mallopt(_MAP, MAPPED)


def give_freed_memory_back() -> None:
    """Give back what this process kept, and let it handle what it frees as it was started to: see Dask's workers."""
    with suppress(OSError, AttributeError, ValueError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM, int(os.environ.get("MALLOC_TRIM_THRESHOLD_", USUAL)))
        library.mallopt(_MAP, int(os.environ.get("MALLOC_MMAP_THRESHOLD_", USUAL)))
        library.malloc_trim(0)
