"""What every kernel backend is, and the rules it keeps.

A backend is one module of this folder with one `Backend` in it. A kernel is a valid-mode function of a padded
float32 block (channel, y, x), or of raw pixels if it says so; it knows no position, border or store. Its bits must
not depend on the block's shape: the plan tries each kernel on a whole block and on pieces of it, and does not choose
one that rounds differently.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pipeline.operation import Operation

Kernel = Callable[..., NDArray[Any]]
"""Of a block, or raw pixels; and of an array ``out`` or a `Room` to write to: for backends that say so. Gives maps,
float32, or what a room was filled with."""


def _one(operations: Sequence[Operation]) -> int:
    del operations
    return 1


def _anywhere(operation: Operation) -> tuple[int, int]:
    del operation
    return 1, 1


def _never(operation: Operation) -> bool:
    del operation
    return False


def _none(operations: Sequence[Operation], shape: tuple[int, ...]) -> int:
    del operations, shape
    return 0


def _in_float32(operation: Operation) -> int:
    return sum(array.nbytes for array in operation.arrays.values()) // 2


def _as_it_is(operation: Operation) -> Operation:
    return operation


@dataclass(frozen=True)
class Backend:
    """A way to compute operations.

    Parameters
    ----------
    name
        What ``--kernel`` and the plan call it.
    supports
        Whether the backend has a kernel for an operation.
    build
        Makes the kernel of one operation, or of several that `fuse` allows; called once for them and process.
    cost
        Seconds for one output pixel of all maps on a current core: the plan takes the backend of the least.
    scratch
        The bytes a kernel holds beside its input and output blocks, from (operation, input pixels, output pixels).
    keeps
        The bytes that a kernel makes of the operation's arrays, and holds as long as its process lives.
    fuse
        How many operations from the first on, all of this backend, one kernel makes in one pass. It must give the same
        bits as one after another.
    cell
        Outputs (y, x) that are made together, on a grid from the map's first pixel on: the stack asks for whole cells,
        cut only by the map's end. What one pass makes besides must step over one pixel, or a part of a cell.
    writes
        Whether its kernels take an array ``out``, of any strides along channel and y, to write to instead of a new one.
    by_strips
        Whether the kernels that begin with an operation also take raw pixels where they lie (`Scattered`) and go
        through them strip by strip, and may be given a `Room` whose numbers they write; none of it is held as a whole.
    strip_bytes
        The bytes that such a kernel of operations holds beside its input and output blocks, for maps of a shape (y, x).
    doubted
        The operation, with how far the rounding of these kernels may take its results, where they go another way to
        them than its own ``doubt`` supposes.
    steady
        Whether a pixel's bits cannot depend on the block, by the way the kernel is made; otherwise the plan tries.
    """

    name: str
    supports: Callable[[Operation], bool]
    build: Callable[[tuple[Operation, ...]], Kernel]
    cost: Callable[[Operation], float]
    scratch: Callable[[Operation, int, int], int]
    keeps: Callable[[Operation], int] = _in_float32
    fuse: Callable[[Sequence[Operation]], int] = _one
    cell: Callable[[Operation], tuple[int, int]] = _anywhere
    doubted: Callable[[Operation], Operation] = _as_it_is
    writes: bool = False
    by_strips: Callable[[Operation], bool] = _never
    strip_bytes: Callable[[Sequence[Operation], tuple[int, ...]], int] = _none
    steady: bool = False
