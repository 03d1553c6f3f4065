"""Normalise: a scale and an offset for all maps, or for each."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StackError
from pipeline.layers.base import Layer, Numbers
from pipeline.operation import POINT, Block, Operation


class Normalise(Layer):
    """x · scale + offset for every pixel."""

    type: Literal["normalise"]
    scale: Numbers = 1.0
    offset: Numbers = 0.0

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation; raises `StackError` where a list is not as long as there are maps."""
        del features
        for key, value in (("scale", self.scale), ("offset", self.offset)):
            if isinstance(value, tuple) and len(value) != len(maps):
                raise StackError(
                    f"layer '{name}': {key} has {len(value)} numbers and the layer takes {len(maps)} maps; "
                    "give one number, or one for each map"
                )
        arrays = {
            key: np.broadcast_to(np.asarray(value, float), len(maps))
            for key, value in (("scale", self.scale), ("offset", self.offset))
        }
        return Operation(self.type, name, POINT, len(maps), maps, normalise, arrays=arrays, work=2 * len(maps))


def normalise(block: Block, operation: Operation) -> Block:
    """Return x · scale + offset, rounded after each of the two."""
    scale, offset = (operation.arrays[key].astype(block.dtype)[:, None, None] for key in ("scale", "offset"))
    out = block * scale
    out += offset
    return out
