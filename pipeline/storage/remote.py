"""Stores that are not folders: zip files, buckets, servers, memory. Each is opened once a process."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, MemoryStore, ZipStore

from pipeline.errors import PlaceError

SCHEMES = ("s3", "gs", "https", "http", "memory")
"""The URLs that can be used; others are refused before anything is read."""

READ_ONLY = ("zip", "https", "http")

EXTRAS = {"s3": "s3", "gs": "gs", "https": "http", "http": "http"}
"""The extra of the distribution that carries what a scheme needs."""


_MEMORY: dict[str, MemoryStore] = {}
"""What this process holds under each ``memory://`` name."""


def connect(scheme: str, root: str, options: str) -> Any:
    """Return the zarr store of a place's root; ``options`` is a JSON object. Raises `PlaceError` where it cannot."""
    if scheme == "zip":
        return _zip(root, Path(root).stat().st_mtime_ns)
    if scheme == "memory":
        return _MEMORY.setdefault(root, MemoryStore())
    try:
        return _fsspec(scheme, root, options)
    except ImportError:
        extra = EXTRAS[scheme]
        raise PlaceError(f"{root}: needs packages that are not installed: pip install 'haloflow[{extra}]'") from None


@lru_cache(maxsize=8)
def _zip(root: str, changed: int) -> Any:
    del changed  # a file that is replaced is opened anew
    return sync(ZipStore.open(root, mode="r"))


@lru_cache(maxsize=64)
def _fsspec(scheme: str, root: str, said: str) -> Any:
    import fsspec  # noqa: PLC0415 - an extra

    options = json.loads(said)
    if scheme == "s3":
        # One request an object: s3fs asks for the size first where it may read in parts.
        options = {"max_concurrency": 1, "use_listings_cache": False, **options}
    fs = fsspec.filesystem(scheme, asynchronous=True, **options)
    return FsspecStore(fs, path=root if scheme in ("https", "http") else root.partition("://")[2])


async def put_new(store: Any, key: str, data: bytes) -> bool:
    """Write an object that is not there yet, and say whether it was not."""
    if isinstance(store, MemoryStore):  # which is changed in one thread only, zarr's own
        if await store.exists(key):
            return False
        await store.set(key, default_buffer_prototype().buffer.from_bytes(data))
        return True
    try:
        await store.fs._pipe_file(f"{store.path}/{key}", data, mode="create")  # noqa: SLF001 - fsspec's interface
    except FileExistsError:
        return False
    return True
