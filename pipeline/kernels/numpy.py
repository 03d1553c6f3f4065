"""Plain NumPy: every layer's own block function in float32. Slow for wide convolutions, and always there."""

from functools import partial

from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation


def _build(operation: Operation) -> Kernel:
    return partial(operation.block, operation=operation)  # type: ignore[return-value]  # float32 in, float32 out


def _scratch(operation: Operation, read: int, made: int) -> int:
    del read
    return 4 * made * len(operation.maps)  # the product of one tap, before it is added


BACKEND = Backend(
    "numpy", rank=100, supports=lambda _: True, build=_build, scratch=_scratch, elementwise=True
)
