"""What a job is: a stack of layers over an image, who competes in it, and what Haloflow must reach."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
Layer = Weights | Literal["relu", "pool"]
"""A convolution's weights (feature, channel, y, x), padding 'same'; a ReLU; or a max pool of window and stride 2."""


@dataclass(frozen=True)
class Target:
    """Haloflow's speed as a multiple of another's, or its time as a multiple of the sum of others' times."""

    against: tuple[str, ...]
    speed_at_least: float | None = None
    time_at_most: float | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One job.

    At ``boundary: nearest`` a peer may widen the raw image by its edge pixels and gets the same borders; from the
    second convolution on no such trick is right, and peers that cut tiles from the image differ at its border.
    """

    name: str
    title: str
    stack: tuple[Layer, ...]
    contestants: tuple[str, ...]
    targets: tuple[Target, ...]
    dtype: str = "float32"
    channels: int = 1
    boundary: Literal["nearest", "constant"] = "nearest"
    shrink: int = 1
    """An output chunk's edge is that of an input chunk divided by this."""
    share: int = 1
    """The image's side is that of the other jobs divided by this."""
    recompute_at_most: float | None = None
    verified: bool = True
    """Whether the float64 reference checks Haloflow's output here; for a deep stack it would take hours."""

    @property
    def convolutions(self) -> list[Weights]:
        """The weights of each convolution."""
        return [layer for layer in self.stack if not isinstance(layer, str)]

    @property
    def features(self) -> int:
        """The number of maps in the output."""
        return len(self.convolutions[-1])

    @property
    def stride(self) -> int:
        """Input pixels from one output pixel to the next."""
        return int(2 ** sum(isinstance(layer, str) and layer == "pool" for layer in self.stack))

    @property
    def halo(self) -> int:
        """Input pixels that a block needs on each side, made a multiple of the stride: so pools stay in step."""
        halo, stride = 0, 1
        for layer in self.stack:
            if isinstance(layer, str):
                stride *= 2 if layer == "pool" else 1
            else:
                halo += layer.shape[-1] // 2 * stride
        return math.ceil(halo / stride) * stride

    def config(self, image: str, features: Mapping[str, str], store: str, chunk: int) -> dict[str, Any]:
        """Return Haloflow's config; ``features`` are the files of the weights, by name and in order."""
        names = iter(features)
        layers: list[dict[str, Any]] = []
        for layer in self.stack:
            if not isinstance(layer, str):
                used = [next(names) for _ in layer]
                same = {"match": "sum", "padding": "same", "boundary": self.boundary}
                layers.append({"type": "convolution", "features": used, **same})
            elif layer == "pool":
                layers.append({"type": "pool", "window": 2, "stride": 2})
            else:
                layers.append({"type": "relu"})
        return {
            "input": {"images": image},
            "features": {name: {"file": file} for name, file in features.items()},
            "layers": layers,
            "output": {"store": store, "dtype": self.dtype, "chunks": chunk, "compression": "lz4"},
        }
