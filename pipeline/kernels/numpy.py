"""Plain NumPy: every layer's own block function in float32. Slow for wide convolutions, and always there."""

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation


def _build(operation: Operation) -> Kernel:
    def kernel(block: NDArray[np.float32]) -> NDArray[np.float32]:
        return operation.block(block, operation).astype(np.float32, copy=False)

    return kernel


def _scratch(operation: Operation, read: int, made: int) -> int:
    del read
    return 4 * made * len(operation.maps)  # the product of one tap, before it is added


BACKEND = Backend("numpy", rank=100, supports=lambda _: True, build=_build, scratch=_scratch, elementwise=True)
