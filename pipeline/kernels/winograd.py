"""Winograd's minimal filtering for features of 3 × 3 on many maps: 16 multiplications for what takes 36.

The layer's map is cut into cells of 2 × 2 outputs, a grid anchored at its first pixel, and each cell is made from its
own window of 4 × 4 pixels (`pipeline.compiled.winograd`). So a pixel's bits depend on the window of its cell alone. A
ReLU and a maximum of 2 × 2 after the convolution are made of a cell's sums while these are in registers: a division by
a positive number, a bias and a ReLU never decrease, so the maximum may come first.

Of all such schemes this is the one whose factors are 0, 1 and ½ alone: whole numbers stay whole, and rounding is like
that of a direct convolution.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import cells, winograd
from pipeline.compiled.lanes import LANES, flat
from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Block, Operation

_SIZE, _CELL = 3, 2

_VAST = 2.0**60
"""Larger weights could overflow here where a direct convolution does not."""

_STRIP = 96
"""Cells at a time: whole runs on every processor. 48 to 192 are as fast; more leave the nearer caches."""

_PRODUCTS, _AROUND = 3.8e10, 7e-10
"""Of one core of an AMD EPYC of the third generation: multiply-adds a second, and the seconds for a pixel of each map
before and after. Scaled from a Xeon with AVX-512 by what ONNX Runtime does on both."""

Array = NDArray[np.float32]


def _supports(operation: Operation) -> bool:
    if operation.kind != "convolution":
        return False
    weights = operation.arrays["weights"]
    return (
        weights.shape[1] == operation.inputs
        and all((w.size, w.stride, w.dilation) == (_SIZE, 1, 1) for w in operation.windows)
        and bool((np.abs(weights) <= _VAST).all())
    )


def _joins_cells(operation: Operation) -> bool:
    return (
        operation.kind == "pool"
        and operation.options["op"] == "max"
        and all((w.size, w.stride) == (_CELL, _CELL) for w in operation.windows)
    )


def _fuse(operations: Sequence[Operation]) -> int:
    """Return how many leading operations one pass makes: the convolution, a ReLU and a maximum, each if there."""
    count = 1
    if count < len(operations) and operations[count].kind == "relu":
        count += 1
    if count < len(operations) and _joins_cells(operations[count]):
        count += 1
    return count


def _spread(weights: Array) -> Array:
    """Return G g Gᵀ of weights (feature, channel, 3, 3), flat, in the order in which the loop takes them."""
    rows = np.ascontiguousarray(weights.transpose(2, 3, 1, 0), np.float64)
    parts = []
    for row in _factors(rows):
        for place in _factors(row):
            for start in range(0, len(place), winograd.PART):
                part = place[start : start + winograd.PART]
                parts.append(part.reshape(len(part), -1, cells.ROWS).swapaxes(0, 1).ravel().astype(np.float32))
    return np.concatenate(parts)


def _factors(taps: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return G g along the first axis.

    It is made step by step: the order of a library's sums may be another one on another processor.
    """
    first, middle, last = taps
    both = first + last
    return [first, (both + middle) / 2, (both - middle) / 2, last]


@lru_cache(maxsize=256)
def _doubted(operation: Operation) -> Operation:
    """Count the rounding of each pixel under a feature with all that it passes through on its way to an output.

    A pixel under a weight of 0 is added to others, and taken away again: what its rounding leaves, stays.
    """
    rows = operation.arrays["weights"].transpose(2, 3, 0, 1)
    spread = np.abs([_factors(row) for row in _factors(rows)])
    # Of the first and of the second output of a cell: the places that it is a sum of, and its pixels that are in each.
    outputs = (
        np.array([[1, 0, 1], [0, 1, 1], [0, 1, 1], [0, 0, 0]]),
        np.array([[0, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 1]]),
    )
    passed = [np.einsum("ijkc,ia,jb->kcab", spread, y, x) for y in outputs for x in outputs]
    heavier = replace(operation, arrays={**operation.arrays, "weights": np.max(passed, axis=0)})

    def doubt(block: Block, off: Block, even: NDArray[np.bool_], _: Operation) -> Block:
        own = operation.doubt(np.zeros_like(block), off, even, operation)
        return own + operation.doubt(block, np.zeros_like(off), even, heavier)

    return replace(operation, doubt=doubt)


def _build(operations: tuple[Operation, ...]) -> Kernel:
    operation = operations[0]
    count, depth = operation.arrays["weights"].shape[:2]
    filled = _filled(count)
    weights = np.zeros((filled, depth, _SIZE, _SIZE), np.float32)
    weights[:count] = operation.arrays["weights"]
    bias = np.zeros(filled, np.float32)
    bias[:count] = operation.arrays["bias"]
    bias += np.float32(0)  # −0 is 0
    spread = _spread(weights)
    direct = np.ascontiguousarray(weights[:count].reshape(count, -1).T)
    floor = 0 if any(o.kind == "relu" for o in operations) else -np.inf
    numbers = np.float32(operation.options["divisor"]), np.float32(floor)
    pooled = operations[-1].kind == "pool"

    def kernel(block: Array, out: Array | None = None) -> Array:
        height, width = ((n - _SIZE + 1) // (_CELL if pooled else 1) for n in block.shape[1:])
        made = np.empty((count, height, width), np.float32) if out is None else out
        given = np.ascontiguousarray(block)
        winograd.run_cells(given, spread, direct, numbers, bias, pooled, _STRIP, made.shape, flat(made))
        return made

    return kernel


def _filled(features: int) -> int:
    return -(-features // cells.ROWS) * cells.ROWS


def _scratch(operation: Operation, read: int, made: int) -> int:
    del made
    count, depth = (int(n) for n in operation.arrays["weights"].shape[:2])
    # A block that does not lie together, and the windows and sums of a strip.
    return 4 * (read * depth + cells.PLACES * (_STRIP + 2 * LANES) * (depth + _filled(count)))


def _keeps(operation: Operation) -> int:
    count, depth = (int(n) for n in operation.arrays["weights"].shape[:2])
    return 4 * depth * (cells.PLACES * _filled(count) + _SIZE**2 * count)


def _cost(operation: Operation) -> float:
    if operation.kind != "convolution":
        return 0.0  # made of what is in registers
    count, depth = operation.arrays["weights"].shape[:2]
    each = cells.PLACES / _CELL**2
    seconds: float = each * depth * _filled(count) / _PRODUCTS + (depth + count) * _AROUND
    return seconds


BACKEND = Backend(
    "winograd",
    supports=_supports,
    build=_build,
    fuse=_fuse,
    cost=_cost,
    scratch=_scratch,
    keeps=_keeps,
    cell=lambda operation: (_CELL, _CELL) if operation.kind == "convolution" else (1, 1),
    doubted=_doubted,
    writes=True,
    steady=True,
)
