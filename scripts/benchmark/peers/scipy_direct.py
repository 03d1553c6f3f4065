"""SciPy's direct correlation; large features take it minutes, so it is measured on a part of the image."""

from typing import Any

import numpy as np
import zarr
from scipy import ndimage

from benchmark.data import to_map
from benchmark.room import Contestant, difference

TAPS = 2**30
"""Products to compute in a run: about a second."""


class Peer(Contestant):
    """scipy.ndimage.correlate in both workers, half of a crop from the image's corner each."""

    name = "scipy-correlate"

    def prepare(self) -> None:
        """Read the crop and spread its halves: with them, half a feature's height from the other half."""
        weights = self.job.convolutions[0][:, 0]
        self.edge = min(self.room.side, 2 * (int((TAPS / weights.size) ** 0.5) // 2))
        stored: Any = zarr.open_array(self.room.image, mode="r")
        radius, half = weights.shape[-1] // 2, self.edge // 2
        crop = to_map(stored[: self.edge, : self.edge])
        self.parts = [crop[: half + radius], crop[half - radius :]]
        self.scale = (self.room.side / self.edge) ** 2
        self.note = f"measured on {self.edge}², without reading and writing, and scaled"

    def run(self) -> None:
        """Correlate both halves."""
        client, weights = self.room.client, self.job.convolutions[0][:, 0]
        futures = [
            client.submit(_correlate, part, weights, workers=[worker], pure=False)
            for part, worker in zip(self.parts, self.room.workers, strict=True)
        ]
        above, below = (future.result() for future in futures)
        half = self.edge // 2
        self.made = np.concatenate([above[:, :half], below[:, -half:]], axis=1)

    def difference(self, margin: int) -> float | None:
        """Compare what lies far enough from the crop's border."""
        inner = slice(0, self.edge - self.job.halo)
        del margin
        return difference(self.room.truth[:, inner, inner], self.made[:, inner, inner])


def _correlate(part: Any, weights: Any) -> Any:
    return np.stack([ndimage.correlate(part, kernel, mode="nearest") for kernel in weights])
