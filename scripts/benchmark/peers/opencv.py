"""`map_overlap` + OpenCV."""

from functools import partial
from typing import Any

import cv2
import numpy as np

from benchmark.data import to_map
from benchmark.peers import overlapped
from benchmark.room import Contestant


class Peer(Contestant):
    """`map_overlap` + OpenCV's filter2D."""

    name = "opencv"
    zarr_threads = overlapped.ZARR_THREADS

    def run(self) -> None:
        """Do the job; it has one convolution."""
        block = partial(_block, weights=self.job.convolutions[0][:, 0], halo=self.job.halo)
        overlapped.run(self.room, self.name, block, units=2)


def _block(pixels: Any, weights: Any, halo: int) -> Any:
    cv2.setNumThreads(1)
    image = to_map(pixels[0])
    inner = slice(halo, -halo)
    maps = np.stack([cv2.filter2D(image, cv2.CV_32F, kernel)[inner, inner] for kernel in weights])
    return overlapped.pool(maps)
