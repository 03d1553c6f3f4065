"""The registry of kernel backends, and the choice of one for each operation.

The choice follows from the operation alone, never from chunks, tiles or memory, so that a pixel's bits do not.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

import numpy as np

from pipeline.errors import PlanError
from pipeline.geometry import Interval
from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation

__all__ = ["BACKENDS", "TOLERANCE", "Choice", "Kernel", "choose", "kernel_for"]

TOLERANCE = 1e-5
"""How far results of two kernels, or of one and the float64 reference, may lie apart, as a part of the map's scale."""


def _collect() -> dict[str, Backend]:
    modules = (import_module(f"{__name__}.{m.name}") for m in iter_modules(__path__) if m.name != "base")
    found: list[Backend] = [module.BACKEND for module in modules]
    return {backend.name: backend for backend in found}


BACKENDS: dict[str, Backend] = _collect()
"""Backends by name."""


@dataclass(frozen=True)
class Choice:
    """The backend chosen for one operation, and why if it was not the preferred one."""

    backend: str
    reason: str = ""


def choose(operation: Operation, forced: str | None = None) -> Choice:
    """Return the backend for an operation: the cheapest that has a kernel for it and rounds alike everywhere.

    With ``forced`` that one, and plain NumPy where it has no kernel, with the reason. Raises `PlanError` for an unknown
    name.
    """
    if forced is not None and forced not in BACKENDS:
        raise PlanError(f"kernel '{forced}': there is no such kernel; there are {', '.join(BACKENDS)}")
    able = [backend for backend in BACKENDS.values() if backend.supports(operation)]
    by_cost = [backend.name for backend in sorted(able, key=lambda backend: backend.cost(operation))]
    reasons = []
    for name in dict.fromkeys([forced, "numpy"]) if forced else by_cost:
        if not BACKENDS[name].supports(operation):
            reasons.append(f"{name} has none for {operation.kind}")
        elif not is_steady(operation, name):
            reasons.append(f"the rounding of {name} depends on the block on this machine")
        else:
            return Choice(name, "; ".join(reasons))
    raise PlanError(f"layer '{operation.name}' has no kernel: {'; '.join(reasons)}")


@lru_cache(maxsize=256)
def kernel_for(operations: tuple[Operation, ...], backend: str) -> Kernel:
    """Return the kernel of an operation, or of several that the backend makes in one pass; built once per process."""
    return BACKENDS[backend].build(operations)


@lru_cache(maxsize=1024)
def is_steady(operation: Operation, backend: str) -> bool:
    """Try whether a kernel gives a piece of a block the same bits as the whole block."""
    if BACKENDS[backend].steady:
        return True
    kernel = kernel_for((operation,), backend)
    made = (37, 45)
    read = [w.reach(Interval(0, n)) for w, n in zip(operation.windows, made, strict=True)]
    values = np.random.default_rng(7).standard_normal((operation.inputs, *map(len, read)), np.float32)
    complete = kernel(values).view(np.uint32)
    pieces = [(0, 37, 0, 1), (0, 1, 0, 45), (3, 4, 5, 6), (1, 18, 2, 35), (20, 37, 31, 45)]
    for top, bottom, left, right in pieces:
        part = tuple(Interval(*i) for i in ((top, bottom), (left, right)))
        rows, columns = (w.reach(i).within(r) for w, i, r in zip(operation.windows, part, read, strict=True))
        piece = kernel(values[:, rows, columns]).view(np.uint32)
        if not np.array_equal(piece, complete[:, top:bottom, left:right]):
            return False
    return True
