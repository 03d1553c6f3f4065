"""Plain NumPy: every layer's own block function in float32. Slow for wide convolutions, and always there."""

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation


def _build(operations: tuple[Operation, ...]) -> Kernel:
    (operation,) = operations

    def kernel(block: NDArray[np.float32]) -> NDArray[np.float32]:
        return operation.block(block, operation).astype(np.float32, copy=False)

    return kernel


def _scratch(operation: Operation, read: int, made: int) -> int:
    # The product of one tap, before it is added; a point layer that computes in float64 holds its steps.
    # Normalised matches hold float64 sums, and means and deviations of patches.
    wide = 72 * read * operation.inputs if operation.kind == "ncc" else 0
    return (4 if operation.kind == "convolution" else 24) * made * len(operation.maps) + wide


def _cost(operation: Operation) -> float:
    return operation.work / 7e8


BACKEND = Backend("numpy", supports=lambda _: True, build=_build, cost=_cost, scratch=_scratch, steady=True)
