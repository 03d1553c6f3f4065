"""`dask.array.map_overlap` with a function that does a whole block: the common part of several peers."""

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np

from benchmark.room import Room

ZARR_THREADS = 1
"""The best found for the peers that Dask runs: two workers already use both cores."""

Block = Callable[[Any], Any]
"""From raw pixels (c, y, x) with the job's halo on each side to the maps without it."""


def run(room: Room, name: str, block: Block, units: int = 1) -> None:
    """Read, widen by the halo, compute and store.

    A block makes ``units`` × ``units`` output chunks of each map, where the image has enough of them to share.
    """
    job, edge = room.job, edge_of(room, units)
    stored = da.from_zarr(str(room.image), chunks=(edge,) * 2 if job.channels == 1 else (job.channels, edge, edge))
    image = stored[None] if job.channels == 1 else stored
    sides = image.numblocks[1]
    maps = da.map_overlap(
        block,
        image,
        depth={0: 0, 1: job.halo, 2: job.halo},
        boundary={0: "none", 1: "nearest", 2: "nearest"},
        trim=False,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        chunks=((job.features,), *((edge // job.stride,) * sides,) * 2),
    )
    store(room, name, maps)


def edge_of(room: Room, units: int) -> int:
    """Return the edge of a block in input pixels."""
    return min(room.unit * units, max(room.side // 2, room.unit))


def store(room: Room, name: str, maps: da.Array) -> None:
    """Compute a Dask array on the cluster, straight into a new output."""
    written = da.store(maps, room.create(name), lock=False, compute=False)
    room.client.compute(written).result()


def pool(maps: Any) -> Any:
    """Max pool 2, then ReLU: it commutes with a maximum, and has less to do there.

    Rows come first, as that step reads along the lines of memory.
    """
    tall = np.maximum(maps[..., ::2, :], maps[..., 1::2, :])
    wide = np.maximum(tall[..., ::2], tall[..., 1::2])
    return np.maximum(wide, 0, out=wide)
