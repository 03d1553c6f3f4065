"""cubed on the open Dask cluster."""

from functools import partial
from typing import Any

import cubed
import numpy as np
from cubed import array_api
from cubed.runtime.executors.dask import DaskExecutor
from scipy import ndimage

from benchmark.data import to_map
from benchmark.peers import overlapped
from benchmark.room import Contestant

MEMORY = "2GB"
"""What cubed may plan with for a task."""


class _Executor(DaskExecutor):  # type: ignore[misc]  # cubed's types are not followed
    """Without cubed's look at the workers' memory: it refuses workers that have no limit."""

    def execute_dag(self, dag: Any, callbacks: Any = None, spec: Any = None, **kwargs: Any) -> None:
        """Run a graph."""
        del spec
        super().execute_dag(dag, callbacks, None, **kwargs)


class Peer(Contestant):
    """cubed's map_overlap refuses new_axis, so the image gets its axis of maps before; the pool is NumPy's."""

    name = "cubed"
    zarr_threads = overlapped.ZARR_THREADS

    def run(self) -> None:
        """Do the job; it has one convolution."""
        room, job, edge = self.room, self.job, self.room.unit
        spec = cubed.Spec(work_dir=str(room.folder / "cubed"), allowed_mem=MEMORY, reserved_mem="300MB")
        stored = cubed.from_zarr(str(room.image), spec=spec).rechunk((edge, edge))
        image = array_api.expand_dims(stored, axis=0)
        sides = room.side // edge
        maps = cubed.map_overlap(
            partial(_block, weights=job.convolutions[0][:, 0], halo=job.halo),
            image,
            dtype=np.float32,
            chunks=((job.features,), *((room.out_chunk,) * sides,) * 2),
            depth={0: 0, 1: job.halo, 2: job.halo},
            boundary={0: 0, 1: 128, 2: 128},
        )
        executor = _Executor(compute_kwargs={"address": room.client.scheduler.address})
        cubed.store([maps], [room.create(self.name)], executor=executor)


def _block(pixels: Any, weights: Any, halo: int) -> Any:
    image, inner = to_map(pixels[0]), slice(halo, -halo)
    maps = np.stack([ndimage.correlate(image, kernel, mode="nearest")[inner, inner] for kernel in weights])
    return overlapped.pool(maps)
