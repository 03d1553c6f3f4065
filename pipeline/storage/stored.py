"""Which chunks of an array are stored; the others are all fill value, and cost neither reading nor computing."""

from typing import Any

import zarr
from zarr.core.sync import sync

from pipeline.storage.source import Source

MOST_AFAR = 50_000
"""Objects that are listed in a bucket at the most, a thousand a request: a few seconds."""

MOST = 200_000
"""Objects that are listed at the most: an array with more of them has hardly a part worth skipping."""


def stored_chunks(source: Source) -> frozenset[tuple[int, int]] | None:
    """Return the places (y, x) of an image's stored chunks or shards, in units of `unit`; None where nearly all are.

    One listing of the array's keys; a key of any form ends with the chunk's place along each axis.
    """
    array = zarr.open_array(source.array.store(), mode="r")
    y, x = source.axes.index("y"), source.axes.index("x")
    sizes = array.shards or array.chunks
    height, width = (-(-e // u) for e, u in zip(source.extents, (sizes[y], sizes[x]), strict=True))
    if not source.array.is_listed or (not source.array.is_local and height * width > MOST_AFAR):
        return None
    places = sync(_list(array, y, x))
    return frozenset(places) if places is not None and len(places) < height * width else None


def unit(source: Source) -> tuple[int, int]:
    """Return the pixels (y, x) of what is stored as one object: a shard where there are shards, else a chunk."""
    array = zarr.open_array(source.array.store(), mode="r")
    sizes = array.shards or array.chunks
    return sizes[source.axes.index("y")], sizes[source.axes.index("x")]


async def _list(array: Any, y: int, x: int) -> set[tuple[int, int]] | None:
    found: set[tuple[int, int]] = set()
    prefix = array.store_path.path
    listed = 0
    async for key in array.store_path.store.list_prefix(f"{prefix}/" if prefix else ""):
        parts = key.removeprefix(prefix).replace(".", "/").split("/")[-array.ndim :]
        if len(parts) == array.ndim and all(part.isdecimal() for part in parts):
            listed += 1
            if listed > MOST:
                return None
            found.add((int(parts[y]), int(parts[x])))
    return found
