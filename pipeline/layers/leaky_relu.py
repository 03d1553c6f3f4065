"""Leaky ReLU: what is negative becomes small instead of zero; NaN stays NaN."""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.layers.base import Layer, Limits, Number, between, times
from pipeline.operation import POINT, Block, Operation


class LeakyRelu(Layer):
    """x where it is positive, slope · x elsewhere."""

    type: Literal["leaky_relu"]
    slope: Annotated[Number, Field(gt=0)] = 0.01

    def limits(self, given: Limits) -> Limits:
        """Return those given, made small where they are negative."""
        below = times(self.slope, given)
        return between(*(end if end > 0 else less for end, less in zip(given, below, strict=True)))

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        arrays = {"slope": np.array([self.slope])}
        return Operation(self.type, name, POINT, len(maps), maps, leaky_relu, arrays=arrays, work=2 * len(maps))


def leaky_relu(block: Block, operation: Operation) -> Block:
    """Return x or slope · x."""
    return np.where(block > 0, block, block * operation.arrays["slope"].astype(block.dtype))
