"""Sigmoid: 1 / (1 + e⁻ˣ), between 0 and 1."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy  # its parts load on use
from numpy.typing import NDArray

from pipeline.layers.base import Layer, Limits, between
from pipeline.operation import POINT, Block, Operation


class Sigmoid(Layer):
    """1 / (1 + e⁻ˣ) for every pixel."""

    type: Literal["sigmoid"]

    def limits(self, given: Limits) -> Limits:
        """Return what the curve makes of those given: it rises."""
        return between(*scipy.special.expit(given))

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        return Operation(self.type, name, POINT, len(maps), maps, sigmoid, work=20 * len(maps))


def sigmoid(block: Block, operation: Operation) -> Block:
    """Return the sigmoid, made in float64, pixel by pixel: NumPy's vector loops may round unlike their rest."""
    del operation
    made: Block = scipy.special.expit(block, dtype=np.float64).astype(block.dtype)
    return made
