"""Abs: the magnitude of every pixel."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.layers.base import Layer, Limits
from pipeline.operation import POINT, Block, Operation


class Abs(Layer):
    """x without its sign, for every pixel."""

    type: Literal["abs"]

    def limits(self, given: Limits) -> Limits:
        """Return those of the magnitudes."""
        low, high = given
        return max(low, -high, 0.0), max(-low, high)

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        return Operation(self.type, name, POINT, len(maps), maps, magnitude, work=len(maps))


def magnitude(block: Block, operation: Operation) -> Block:
    """Return the pixels without their signs."""
    del operation
    return np.abs(block)
