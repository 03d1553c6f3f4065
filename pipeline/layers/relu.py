"""ReLU: what is negative becomes zero; NaN stays NaN."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.layers.base import Layer, Limits
from pipeline.operation import POINT, Block, Operation


class Relu(Layer):
    """max(x, 0) for every pixel."""

    type: Literal["relu"]

    def limits(self, given: Limits) -> Limits:
        """Return those given, none below 0."""
        return max(given[0], 0.0), max(given[1], 0.0)

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        return Operation(self.type, name, POINT, len(maps), maps, relu, work=len(maps))


def relu(block: Block, operation: Operation) -> Block:
    """Return max(x, 0), the zero always +0."""
    del operation
    out = np.maximum(block, block.dtype.type(0))
    out += block.dtype.type(0)  # which of −0 and +0 a maximum keeps is not defined: keep +0
    return out
