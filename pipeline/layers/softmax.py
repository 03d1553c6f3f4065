"""Softmax over maps: each pixel's maps become shares that add up to 1."""

from collections.abc import Mapping
from functools import reduce
from typing import Literal

import numpy as np
import scipy  # its parts load on use
from numpy.typing import NDArray

from pipeline.layers.base import Layer, Limits
from pipeline.operation import POINT, Block, Operation, rounded


class Softmax(Layer):
    """eˣ of each map over the sum of all maps' eˣ, for every pixel; where a map is +∞ or NaN, the pixel is NaN."""

    type: Literal["softmax"]

    def limits(self, given: Limits) -> Limits:
        """Return those of a share."""
        del given
        return 0.0, 1.0

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        return Operation(self.type, name, POINT, len(maps), maps, softmax, work=20 * len(maps), doubt=doubt_of_shares)


def softmax(block: Block, operation: Operation) -> Block:
    """Return the shares, made in float64 from each map's distance to the largest, map by map in their order.

    A reduction over an axis would order its sums by the block's layout, and NumPy's vector loops of exp may round
    unlike their rest; SciPy's expm1 goes one pixel after another.
    """
    del operation
    largest = reduce(np.maximum, block)
    powers = [scipy.special.expm1(np.subtract(values, largest, dtype=np.float64)) + 1 for values in block]
    total = reduce(np.add, powers)
    return np.stack([power / total for power in powers]).astype(block.dtype)


def doubt_of_shares(block: Block, off: Block, even: NDArray[np.bool_], operation: Operation) -> Block:
    """Return how far shares may be off: half as far as the maps, as Σ|∂sᵢ/∂xⱼ| = 2 sᵢ (1 − sᵢ)."""
    del even, operation
    return np.broadcast_to(np.minimum(rounded(block, off, 1).max(axis=0) / 2, 1), block.shape)
