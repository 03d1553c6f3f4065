"""`map_overlap` + PyTorch on the CPU."""

from functools import partial
from typing import Any

import torch
from torch.nn import functional

from benchmark.data import to_map
from benchmark.jobs import Layer
from benchmark.peers import overlapped
from benchmark.room import Contestant


class Peer(Contestant):
    """`map_overlap` + PyTorch: the whole stack on a block that was widened once by the stack's halo."""

    name = "torch"
    zarr_threads = overlapped.ZARR_THREADS

    def run(self) -> None:
        """Do the job; the weights are a part of the graph."""
        job = self.job
        block = partial(_block, stack=job.stack, crop=job.halo // job.stride)
        overlapped.run(self.room, self.name, block, units=2 if len(job.convolutions) == 1 else 1)


def _block(pixels: Any, stack: tuple[Layer, ...], crop: int) -> Any:
    torch.set_num_threads(1)
    with torch.inference_mode():
        maps = torch.from_numpy(to_map(pixels))[None]
        for layer in stack:
            if not isinstance(layer, str):
                maps = functional.conv2d(maps, torch.from_numpy(layer), padding=layer.shape[-1] // 2)
            else:
                maps = functional.relu_(maps) if layer == "relu" else functional.max_pool2d(maps, 2)
        return maps[0, :, crop:-crop, crop:-crop].numpy()
