"""Vector registers as compiled loops use them: their pixels, and steps on all of them at once, in LLVM's own words."""

from typing import Any

from llvmlite import binding, ir

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Pixels of one vector register; more registers are one vector to the compiler, fewer are two."""

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()

VECTOR = ir.VectorType(F32, LANES)


def at(builder: Any, pointer: Any, pixels: Any) -> Any:
    """Return where the vector lies that begins so many pixels from a pointer to pixels."""
    return builder.bitcast(builder.gep(pointer, [pixels]), VECTOR.as_pointer())


def all_of(number: float) -> Any:
    """Return a vector of one number."""
    return ir.Constant(VECTOR, [number] * LANES)


def picked(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    """Return a vector of pixels of two vectors, by their places in the first and on in the second."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, LANES), places))


def extreme(builder: Any, sign: str, first: Any, second: Any) -> Any:
    """Return the greater (``>``) or lesser (``<``) of two pixels, or of each pair of two vectors' pixels.

    NaN wins, and of two zeros the second one is taken. LLVM's own ``maximum`` also tells −0 from +0, for which vector
    units take twice as many steps.
    """
    beyond = builder.select(builder.fcmp_ordered(sign, first, second), first, second)
    return builder.select(builder.fcmp_unordered("uno", first, first), first, beyond)
