"""What every kernel backend is, and the rules it keeps.

A backend is one module of this folder with one `Backend` in it. A kernel is a valid-mode function of a padded
float32 block (channel, y, x); it knows no position, border or store. Its bits must not depend on the block's shape:
the plan tries each kernel on a whole block and on pieces of it, and does not choose one that rounds differently.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.operation import Operation

Kernel = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Backend:
    """A way to compute operations.

    Parameters
    ----------
    name
        What ``--kernel`` and the plan call it.
    rank
        The plan takes the supporting backend of the lowest rank.
    supports
        Whether the backend has a kernel for an operation.
    build
        Makes the kernel; called once per operation and process.
    scratch
        The bytes a kernel holds beside its input and output blocks, from (operation, input pixels, output pixels).
    elementwise
        Whether every pixel is made by the same elementwise steps, so that its bits cannot depend on the block.
    """

    name: str
    rank: int
    supports: Callable[[Operation], bool]
    build: Callable[[Operation], Kernel]
    scratch: Callable[[Operation, int, int], int]
    elementwise: bool = False
