"""What tells a machine and a process apart from all others."""

import ctypes
import errno
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
"""What syncfs says, since Linux 5.8, where something that was written could not be brought to the disk."""


@cache
def boot() -> tuple[str, str]:
    """Return the host's name, and a name for the time since it was started."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        started = f"{psutil.boot_time():.0f}"
    return socket.gethostname(), started


def namespace() -> str:
    """Return a name for the space in which process numbers count: containers have their own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_started(pid: int) -> float | None:
    """Return when a process of this machine was started; None where there is none.

    It is in ticks since the system's start where that is known, for a time of day moves when a clock is set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        with suppress(OSError, ValueError, IndexError):  # the 22nd field, see proc(5); the 2nd is in parentheses
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return process.create_time()
    except psutil.Error:
        return None


def bring_to_disk(path: str) -> None:
    """Bring the file system that a path lies on to the disk, where the system can; raises `OSError` where it fails."""
    opened = os.open(path, os.O_RDONLY)
    try:
        with suppress(AttributeError):
            failed = ctypes.CDLL(None, use_errno=True).syncfs(opened)
            if failed and (code := ctypes.get_errno()) in LOST:
                raise OSError(code, os.strerror(code))
    finally:
        os.close(opened)
