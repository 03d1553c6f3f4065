"""Global pooling: the largest value or the mean of each whole map, as a map of one pixel."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.layers.base import Layer
from pipeline.operation import POINT, Block, Operation


class GlobalPool(Layer):
    """One pixel for each map of a plane: its largest value, or its exact sum over its number of pixels.

    So the result is the same whatever the parts in which a map is made. A map with NaN gives NaN. The layers after it
    see maps of one pixel; what the last gives for a plane is a row of the table ``decisions`` of a run.
    """

    type: Literal["global_pool"]
    op: Literal["max", "mean"] = "max"

    @property
    def joins_all(self) -> bool:
        """It is the one layer that does."""
        return True

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        return Operation(
            self.type,
            name,
            POINT,
            len(maps),
            maps,
            pool_all,
            options={"op": self.op},
            work=len(maps),
            joins_all=True,
        )


def pool_all(block: Block, operation: Operation) -> Block:
    """Return whole maps (map, y, x) as (map, 1, 1)."""
    if operation.options["op"] == "max":
        pooled = [values.max() for values in block]
    else:
        pooled = [_mean(values) for values in block]
    # Which of two equal zeros a maximum keeps differs: keep +0.
    return np.array(pooled, np.float64).reshape(-1, 1, 1).astype(block.dtype) + block.dtype.type(0)


def _mean(values: Block) -> float:
    """Return the exact sum, rounded to float64, over the number of values; infinities as IEEE adds them."""
    if not np.isfinite(values).all():
        with np.errstate(invalid="ignore"):
            return float(values.sum(dtype=np.float64))
    return math.fsum(values.ravel().tolist()) / values.size
