"""Tanh: the hyperbolic tangent, between −1 and 1."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy  # its parts load on use
from numpy.typing import NDArray

from pipeline.layers.base import Layer, Limits, between
from pipeline.operation import POINT, Block, Operation


class Tanh(Layer):
    """tanh x for every pixel."""

    type: Literal["tanh"]

    def limits(self, given: Limits) -> Limits:
        """Return what the curve makes of those given: it rises."""
        return between(*_tanh(np.array(given)))

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        return Operation(self.type, name, POINT, len(maps), maps, tanh, work=20 * len(maps))


def tanh(block: Block, operation: Operation) -> Block:
    """Return the hyperbolic tangent, made in float64."""
    del operation
    made: Block = _tanh(block).astype(block.dtype)
    return made


def _tanh(values: Block) -> NDArray[np.float64]:
    """Return −m / (m + 2) with m = e⁻²ˣ − 1 and the sign of x.

    SciPy's expm1 goes one pixel after another: NumPy's vector loops of tanh may round unlike their rest.
    """
    rest = scipy.special.expm1(-2 * np.abs(values, dtype=np.float64), dtype=np.float64)
    made: NDArray[np.float64] = np.copysign(-rest / (rest + 2), values)
    return made
