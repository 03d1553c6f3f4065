"""Loops from map values to the numbers of fewer bits that are stored; on the way they look for the maps' range.

All maps are (c, y, x), and the pixels of a row lie side by side. Each loop returns the least and the greatest number of
its maps, (inf, −inf) where none is one: a row is looked at while it is close to the processor.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled.lanes import (
    F32,
    I32,
    I64,
    LANES,
    VECTOR,
    alike,
    all_of,
    at,
    fma,
    line,
    multiply_add,
    rest,
    row_of,
)
from pipeline.compiled.loops import ends, look, nothing_seen

MADE_WITH = {"lanes": "e7e3560ff697", "loops": "191c5993d88c"}

UNSURE = 1e-4
"""How far float32 may have a quotient wrong, so that few enough are doubted: that of 8 bits, not that of 16."""


@intrinsic
def _half(typing: Any, number: Any) -> Any:
    """Return the bits of the nearest float16; too large is infinite, as IEEE 754 has it, and NaN is always the same."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        del context, signature
        bits = builder.bitcast(builder.fptrunc(given[0], ir.HalfType()), ir.IntType(16))
        return builder.select(builder.fcmp_unordered("uno", given[0], given[0]), ir.IntType(16)(0x7E00), bits)

    return types.uint16(number), generate


@njit(cache=True, nogil=True)
def halve(maps, out):
    """Write the bits of the nearest float16 numbers to ``out``; return the range of the maps."""
    seen = nothing_seen()
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            look(maps, c, y, seen)
            source, target = line(maps, c, y), line(out, c, y)
            for x in range(len(target)):
                target[x] = _half(source[x])
    return ends(seen)


@intrinsic
def _count(typing: Any, maps: Any, place: Any, vectors: Any, line: Any, out: Any) -> Any:
    """Write the integers nearest to pixel · step + start for the first vectors of a row (c, y).

    ``line`` is (step, start, first, last, missing): the integers are cut to ``first`` … ``last``, and NaN becomes
    ``missing``. Returns how far a pixel was from its integer at the most: close to ½ another one may be the nearest.
    """
    del typing, line
    signature = types.float32(maps, place, vectors, types.UniTuple(types.float32, 5), out)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = [context.make_array(signature.args[n])(context, builder, given[n]) for n in (0, 4)]
        source, target = (row_of(builder, array, cgutils.unpack_tuple(builder, given[1])) for array in arrays)
        step, start, first, last, missing = (
            alike(builder, number) for number in cgutils.unpack_tuple(builder, given[3])
        )
        rounded, positive = (
            cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.{name}.v{LANES}f32"
            )
            for name in ("rint", "fabs")
        )
        numbers = ir.VectorType(target.type.pointee, LANES)
        farthest = cgutils.alloca_once_value(builder, all_of(0.0))
        with cgutils.for_range(builder, given[2]) as loop:
            x = builder.mul(loop.index, I64(LANES))
            pixels = builder.load(at(builder, source, x), align=4)
            counted = multiply_add(builder, pixels, step, start)
            counted = builder.select(builder.fcmp_ordered("<", counted, first), first, counted)
            counted = builder.select(builder.fcmp_ordered(">", counted, last), last, counted)
            whole = builder.call(rounded, [counted])
            off, far = builder.call(positive, [builder.fsub(counted, whole)]), builder.load(farthest)
            builder.store(builder.select(builder.fcmp_ordered(">", off, far), off, far), farthest)
            whole = builder.select(builder.fcmp_unordered("uno", pixels, pixels), missing, whole)
            made = builder.trunc(builder.fptosi(whole, ir.VectorType(I32, LANES)), numbers)
            builder.store(made, builder.bitcast(builder.gep(target, [x]), numbers.as_pointer()), align=1)
        greatest = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(F32, [VECTOR]), f"llvm.vector.reduce.fmax.v{LANES}f32"
        )
        return builder.call(greatest, [builder.load(farthest)])

    return signature, generate


@njit(cache=True, nogil=True, error_model="numpy")
def quantise(maps, offset, scale, first, last, missing, out):
    """Write the nearest integers to (maps − offset) / scale, cut to ``first`` … ``last``; return the range of the maps.

    NaN becomes ``missing``; all numbers are float64. A quotient is made by its divisor's reciprocal and mended by what
    is left, which rounds as a division does [1]_ and takes half the time.

    Where float32 is exact enough to tell nearly all integers, a row is made in float32, and in float64 only if one of
    its quotients lies so close to the middle between two integers that float32 may have it on the wrong side. It is
    pixel · step + start; step, start and what comes of them are each off by 2⁻²⁴ of themselves at the most, which is
    together 2⁻²³ of |start| and the greatest quotient that counts. Twice that is allowed for.

    .. [1] P. W. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990.
    """
    reciprocal = 1.0 / scale
    low, high = (first - 1) * scale, (last + 1) * scale  # what lies beyond is cut off in any case
    step, start = np.float32(reciprocal), np.float32(-offset * reciprocal)
    wrong = 2.0**-22 * (abs(start) + max(abs(first), abs(last)) + 1)
    quick = wrong <= UNSURE and 1e-30 < scale < 1e30  # float32 has the reciprocal with all its bits
    seen = nothing_seen()
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            look(maps, c, y, seen)
            source, target = line(maps, c, y), line(out, c, y)
            begin = 0
            if quick:
                vectors = len(target) // LANES
                far = _count(maps, (c, y), vectors, (step, start, first, last, missing), out)
                begin = vectors * LANES if far < 0.5 - wrong else 0
            source, target = rest(source, begin), rest(target, begin)
            for x in range(len(target)):  # from 0 on, or it would look for places below it, one by one
                pixel = np.float64(source[x])
                above = min(max(pixel - offset, low), high)
                near = above * reciprocal
                counted = np.rint(fma(fma(-near, scale, above), reciprocal, near))
                counted = max(counted, first)
                counted = min(counted, last)
                target[x] = np.int32(missing if pixel != pixel else counted)
    return ends(seen)
