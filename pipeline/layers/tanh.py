"""Tanh: the hyperbolic tangent, between −1 and 1."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipeline.layers.base import Layer
from pipeline.operation import POINT, Block, Operation


class Tanh(Layer):
    """tanh x for every pixel."""

    type: Literal["tanh"]

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        return Operation(self.type, name, POINT, len(maps), maps, tanh, work=20 * len(maps))


def tanh(block: Block, operation: Operation) -> Block:
    """Return −m / (m + 2) with m = e⁻²ˣ − 1 and the sign of x, in float64.

    SciPy's expm1 goes one pixel after another: NumPy's vector loops of tanh may round unlike their rest.
    """
    del operation
    rest = special.expm1(-2 * np.abs(block, dtype=np.float64), dtype=np.float64)
    made: Block = np.copysign(-rest / (rest + 2), block).astype(block.dtype)
    return made
