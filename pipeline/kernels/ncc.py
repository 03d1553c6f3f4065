"""Normalised cross-correlation by transforms: the sums of balanced features by `fft`, over the patches' deviations.

A feature of mean 0 does not see a patch's mean, so the sums lose nothing to a large offset in float64, and the
deviations are exact (`pipeline.patches`). Cells, and so bits, are those of `fft`.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import fft
from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation
from pipeline.patches import deviation, score

_SPREAD = 4e-8
"""Seconds of one core of an AMD EPYC of the third generation for the deviation of a patch; its size hardly matters."""


@lru_cache(maxsize=256)
def _sums(operation: Operation) -> Operation:
    """Return the convolution that gives the sums; its results beside infinities do not matter, as there all is NaN."""
    arrays = {"weights": operation.arrays["weights"], "bias": np.zeros(len(operation.arrays["bias"]))}
    return replace(operation, kind="convolution", arrays=arrays, options={"divisor": 1})


def _supports(operation: Operation) -> bool:
    return operation.kind == "ncc" and fft.BACKEND.supports(_sums(operation))


def _build(operations: tuple[Operation, ...]) -> Kernel:
    (operation,) = operations
    sums = fft.BACKEND.build((_sums(operation),))
    count, depth = operation.arrays["weights"].shape[:2]

    def kernel(block: NDArray[np.float32]) -> NDArray[np.float32]:
        found = sums(block)
        deviations = deviation(block, depth, operation.windows)
        score(found.reshape(-1, count, *found.shape[1:]), deviations, operation.arrays["bias"])
        return found

    return kernel


def _scratch(operation: Operation, read: int, made: int) -> int:
    return max(fft.BACKEND.scratch(_sums(operation), read, made), 64 * operation.inputs * read)


def _cost(operation: Operation) -> float:
    return fft.cost(_sums(operation)) + operation.inputs * _SPREAD


def _cell(operation: Operation) -> tuple[int, int]:
    return fft.BACKEND.cell(_sums(operation))


BACKEND = Backend("ncc", supports=_supports, build=_build, cost=_cost, scratch=_scratch, cell=_cell, steady=True)
