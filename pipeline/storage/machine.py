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
    """Return when a process of this machine was started, in seconds of the epoch; None where there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def process_ticks(pid: int) -> int | None:
    """Return when a process was started, in ticks since the system's start; None where the system does not say it.

    A time of day moves when a clock is set, and these do not.
    """
    try:  # the 22nd field, see proc(5); the 2nd is in parentheses
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
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
