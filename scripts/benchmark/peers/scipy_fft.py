"""SciPy, the whole image in memory: one Fourier transform of the image, shared by all features."""

import time
from typing import Any

import numpy as np
import zarr
from scipy import fft

from benchmark.data import to_map
from benchmark.room import Contestant

WORKERS = 2
"""Threads of a transform."""


class Peer(Contestant):
    """scipy.fft over the whole image, read from Zarr and written to Zarr, with two threads."""

    name = "scipy-fft"

    def run(self) -> None:
        """Do the job; it has one convolution."""
        stored: Any = zarr.open_array(self.room.image, mode="r")
        output = self.room.create(self.name)
        image = to_map(stored[:])
        started = time.perf_counter()
        written = 0.0
        radius = self.job.convolutions[0].shape[-1] // 2
        wide = np.pad(image, radius, mode="edge")
        size = [fft.next_fast_len(n, real=True) for n in wide.shape]
        spectrum = fft.rfft2(wide, size, workers=WORKERS)
        for number, weights in enumerate(self.job.convolutions[0][:, 0]):
            product = fft.rfft2(weights, size, workers=WORKERS)
            np.conjugate(product, out=product)  # correlation: the feature is not flipped
            product *= spectrum
            match = fft.irfft2(product, size, workers=WORKERS, overwrite_x=True)
            before = time.perf_counter()
            output[number] = match[: image.shape[0], : image.shape[1]]
            written += time.perf_counter() - before
        computed = time.perf_counter() - started - written
        self.note = f"computing alone takes {computed:.2f} s of it"
