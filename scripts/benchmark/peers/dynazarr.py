"""dyna-zarr: no Dask, threads and tensorstore in one process."""

import numpy as np
from dyna_zarr import Codecs, io, operations

from benchmark.data import to_map
from benchmark.room import Contestant


class Peer(Contestant):
    """dyna-zarr with two threads."""

    name = "dyna-zarr"

    def run(self) -> None:
        """Do the job; it has one convolution."""
        room = self.room
        image = operations.map_blocks(to_map, io.read(str(room.image)), dtype=np.float32)
        pooled = []
        for kernel in self.job.convolutions[0][:, 0]:
            match = operations.correlate(image, kernel, boundary="nearest")
            # ReLU commutes with a maximum, and has less to do after it.
            pooled.append(operations.maximum(operations.coarsen(match, (2, 2), "max"), np.float32(0)))
        with io.capture_messages():  # it reports progress by printing
            io.write(
                operations.stack(pooled),
                str(room.output(self.name)),
                max_threads=2,
                chunks=(1, room.out_chunk, room.out_chunk),
                dtype=np.float32,
                compressor=Codecs("blosc", clevel=5, cname="lz4", shuffle=1),
            )
