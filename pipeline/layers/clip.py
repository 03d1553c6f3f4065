"""Clip: what lies beyond a bound becomes the bound; NaN stays NaN."""

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from pipeline.layers.base import Layer, Limits, Number, between
from pipeline.operation import POINT, Block, Operation


class Clip(Layer):
    """min(max(x, low), high) for every pixel; without one of the two, that side is open."""

    type: Literal["clip"]
    low: Number | None = None
    high: Number | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("clip needs low, high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"clip goes from {self.low:g} to {self.high:g}; low must be less than high")
        return self

    def limits(self, given: Limits) -> Limits:
        """Return those given, cut by the bounds."""
        low, high = (end if self.high is None else min(end, self.high) for end in given)
        return between(*(end if self.low is None else max(end, self.low) for end in (low, high)))

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation."""
        del features
        bounds = {"low": self.low, "high": self.high}
        arrays = {key: np.array([bound]) for key, bound in bounds.items() if bound is not None}
        return Operation(self.type, name, POINT, len(maps), maps, clip, arrays=arrays, work=2 * len(maps))


def clip(block: Block, operation: Operation) -> Block:
    """Return x within the bounds."""
    kind = block.dtype
    out = block + kind.type(0)  # which of −0 and +0 a maximum keeps is not defined: there is +0 only
    if (high := operation.arrays.get("high")) is not None:
        out = np.minimum(out, high.astype(kind) + kind.type(0))
    if (low := operation.arrays.get("low")) is not None:
        out = np.maximum(out, low.astype(kind) + kind.type(0))
    return out
