"""What tells a machine and a process apart from all others."""

import ctypes
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil


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


def bring_to_disk(path: str) -> None:
    """Bring the file system that a path lies on to the disk, where the system can."""
    opened = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).syncfs(opened)
    finally:
        os.close(opened)
