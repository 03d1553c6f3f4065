"""Files on this machine's disks: read in one go, and there when they are whole, not before."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet; it begins with a dot."""


def get(path: str) -> bytes:
    """Return the bytes of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_from(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def read_from(descriptor: int, first: int, length: int) -> bytes:
    """Return bytes of an open file from a place on, fewer where it ends before; the system may give them in parts."""
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, first)):
        parts.append(part)
        first, length = first + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_to(descriptor: int, data: Any) -> None:
    """Write all bytes to an open file, which the system may take in parts."""
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


def put_aside(target: str, data: Any, folder: str | None = None) -> str:
    """Write a file under a name of its own beside its target, or in a folder, which is made; return its path."""
    above, name = os.path.split(target)
    partial = f"{folder or above}/.{name}.{secrets.token_hex(8)}{PARTIAL}"
    try:
        _put(partial, data)
    except FileNotFoundError:
        os.makedirs(folder or above, exist_ok=True)
        _put(partial, data)
    return partial


def put(target: str, data: Any, folder: str | None = None, check: Callable[[], None] | None = None) -> None:
    """Write a file under a name of its own and rename it into place, so that no reader sees half of it.

    Parameters
    ----------
    target, data
        Where, and what.
    folder
        Where it is until it is whole; by default beside its place.
    check
        Called just before the file is put into its place; where it raises, it is not.
    """
    partial = put_aside(target, data, folder)
    try:
        if check:
            check()
        try:
            os.replace(partial, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(partial, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def _put(path: str, data: Any) -> None:
    """Write a new file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_to(descriptor, data)
    except OSError:  # a full disk, say: half of it is of no use to anybody
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
