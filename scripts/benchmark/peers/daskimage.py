"""dask-image for the convolution, Dask for the rest."""

import dask.array as da
import numpy as np
from dask_image import ndfilters

from benchmark.data import to_map
from benchmark.peers import overlapped
from benchmark.room import Contestant


class Peer(Contestant):
    """dask-image's correlate, a feature at a time; ReLU and pool by Dask."""

    name = "dask-image"
    zarr_threads = overlapped.ZARR_THREADS

    def run(self) -> None:
        """Do the job; it has one convolution."""
        edge = overlapped.edge_of(self.room, units=2)
        image = da.from_zarr(str(self.room.image), chunks=edge).map_blocks(to_map, dtype=np.float32)
        matches = da.stack([ndfilters.correlate(image, kernel, "nearest") for kernel in self.job.convolutions[0][:, 0]])
        maps = da.maximum(da.coarsen(np.max, matches, {1: 2, 2: 2}), 0)  # ReLU commutes with a maximum
        overlapped.store(self.room, self.name, maps)
