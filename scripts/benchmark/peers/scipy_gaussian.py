"""scipy.ndimage.gaussian_filter through Dask."""

from functools import partial
from typing import Any

from scipy import ndimage

from benchmark.catalogue import SIGMA, TRUNCATE
from benchmark.data import to_map
from benchmark.peers import overlapped
from benchmark.room import Contestant


class Peer(Contestant):
    """`map_overlap` + scipy.ndimage.gaussian_filter: two passes of one dimension."""

    name = "scipy-gaussian"
    zarr_threads = overlapped.ZARR_THREADS

    def run(self) -> None:
        """Do the job."""
        overlapped.run(self.room, self.name, partial(_block, halo=self.job.halo), units=2)


def _block(pixels: Any, halo: int) -> Any:
    inner = slice(halo, -halo)
    return ndimage.gaussian_filter(to_map(pixels[0]), SIGMA, truncate=TRUNCATE)[None, inner, inner]
