"""Normalise: a scale and an offset for all maps, or for each."""

from collections.abc import Mapping
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StackError
from pipeline.layers.base import ANY, Layer, Limits, Numbers, between, times
from pipeline.operation import POINT, Block, Operation


class Normalise(Layer):
    """x · scale + offset for every pixel."""

    type: Literal["normalise"]
    scale: Numbers = 1.0
    offset: Numbers = 0.0

    def limits(self, given: Limits) -> Limits:
        """Return those of all maps."""
        scales, offsets = (v if isinstance(v, tuple) else (v,) for v in (self.scale, self.offset))
        # Two lists that are not of one length are refused where the maps are known.
        alike = len(scales) > 1 and len(offsets) > 1
        pairs = zip(scales, offsets, strict=False) if alike else product(scales, offsets)
        ends = [float(np.float32(end) + np.float32(b)) for a, b in pairs for end in times(a, given)]
        return between(*ends) if ends else ANY

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
