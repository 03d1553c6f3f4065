"""Pooling: the largest, smallest or mean value under a window that steps over each map."""

from collections.abc import Mapping
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Window
from pipeline.layers.base import Layer, Limits, Pair, added, between, refuse_wide
from pipeline.operation import Block, Operation

_FILL = {"max": -np.inf, "min": np.inf, "mean": 0.0}
_JOIN: dict[str, np.ufunc] = {"max": np.maximum, "min": np.minimum, "mean": np.add}


class Pool(Layer):
    """``partial: keep`` counts the last window though the edge cuts it; a mean counts real pixels only."""

    type: Literal["pool"]
    op: Literal["max", "mean", "min"] = "max"
    window: Pair = (2, 2)
    stride: Pair = (2, 2)
    partial: Literal["keep", "drop"] = "keep"

    def limits(self, given: Limits) -> Limits:
        """Return those given; a mean may lie beyond by its rounding."""
        if self.op != "mean":
            return given
        taps = self.window[0] * self.window[1]
        return between(*(end / taps for end in added([given] * taps)))

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation; for a mean its block gives the sum, which the stack divides by the real pixels."""
        del features
        y, x = (
            Window(size, stride, partial=self.partial == "keep")
            for size, stride in zip(self.window, self.stride, strict=True)
        )
        refuse_wide(name, "pool window", y, x)
        return Operation(
            kind=self.type,
            name=name,
            windows=(y, x),
            inputs=len(maps),
            maps=maps,
            block=pool,
            fill=_FILL[self.op],
            average=self.op == "mean",
            options={"op": self.op},
            work=len(maps) * self.window[0] * self.window[1],
            subject="pool window",
        )


def pool(block: Block, operation: Operation) -> Block:
    """Join the rows under each window, then the columns."""
    join = _JOIN[str(operation.options["op"])]
    y, x = operation.windows
    tall = reduce(join, (block[:, y.taps(t, block.shape[1])] for t in range(y.size)))
    wide: Block = reduce(join, (tall[:, :, x.taps(t, block.shape[2])] for t in range(x.size)))
    # Which of two equal zeros a maximum keeps differs between a vector loop and its remainder: keep +0.
    return wide + wide.dtype.type(0)
