"""Threshold: what does not reach a value is replaced, and by choice what does; NaN stays NaN."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.layers.base import Layer, Limits, Number, between
from pipeline.operation import POINT, Block, Operation


class Threshold(Layer):
    """``below`` where x < at; elsewhere x, or ``above`` where it is given.

    It jumps: where x lies within rounding of ``at``, kernels and the float64 reference may stand on different sides.
    """

    type: Literal["threshold"]
    at: Number
    below: Number = 0.0
    above: Number | None = None

    def limits(self, given: Limits) -> Limits:
        """Return those of what is kept and of what stands for the rest."""
        at = float(np.float32(self.at))
        found = [self.below] if given[0] < at else []
        if given[1] >= at:
            found += [max(given[0], at), given[1]] if self.above is None else [self.above]
        return between(*found)

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        arrays = {"at": np.array([self.at]), "below": np.array([self.below])}
        if self.above is not None:
            arrays["above"] = np.array([self.above])
        return Operation(self.type, name, POINT, len(maps), maps, threshold, arrays=arrays, work=2 * len(maps))


def threshold(block: Block, operation: Operation) -> Block:
    """Return x, or what stands for it."""
    numbers = {key: values.astype(block.dtype) for key, values in operation.arrays.items()}
    kept = numbers.get("above", block)
    out = np.where(block < numbers["at"], numbers["below"], kept)
    return np.where(np.isnan(block), block, out)
