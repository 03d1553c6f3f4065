"""Loops over pixels that NumPy takes several passes for: conversion of numbers, and the range of maps."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_F32 = ir.FloatType()


def _number(name: str) -> Any:
    """Return the lesser or greater of two pixels, or the one that is a number where the other is NaN."""

    @intrinsic
    def join(typing: Any, a: Any, b: Any) -> Any:
        del typing

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            del context, signature
            kind = ir.FunctionType(_F32, [_F32, _F32])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.f32"), given)

        return types.float32(a, b), generate

    return join


_lesser, _greater = _number("minnum"), _number("maxnum")


@njit(cache=True, nogil=True)
def look_up(numbers, table, out):
    """Write ``table[numbers]`` to ``out``, both (c, y, x)."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[c, y, x] = table[numbers[c, y, x]]


@njit(cache=True, nogil=True)
def stretch(numbers, factor, offset, out):
    """Write ``numbers · factor + offset`` to float32 ``out``, both (c, y, x); in float64, rounded after each step."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[c, y, x] = np.float64(numbers[c, y, x]) * factor + offset


@njit(cache=True, nogil=True)
def survey(maps):
    """Give every NaN of (c, y, x) maps the same bits, and return the least and the greatest number.

    Which sign and payload of NaN survives an operation depends on a vector loop's lanes. (inf, −inf) where no pixel is
    a number.
    """
    width = maps.shape[2]
    low, high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    hollow = False
    for c in range(maps.shape[0]):
        for y in range(maps.shape[1]):
            strange = 0
            for x in range(width):
                pixel = maps[c, y, x]
                low[x] = _lesser(low[x], pixel)
                high[x] = _greater(high[x], pixel)
                strange += pixel != pixel
            hollow |= strange > 0
    if hollow:
        for c in range(maps.shape[0]):
            for y in range(maps.shape[1]):
                for x in range(width):
                    if maps[c, y, x] != maps[c, y, x]:
                        maps[c, y, x] = np.nan
    return low.min(), high.max()


@njit(cache=True, nogil=True, error_model="numpy")
def quantise(maps, offset, scale, first, last, missing, out):
    """Write the nearest integers to (maps − offset) / scale, cut to ``first`` … ``last``.

    NaN becomes ``missing``; all numbers are float64.
    """
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                pixel = np.float64(maps[c, y, x])
                counted = np.rint((pixel - offset) / scale)
                counted = max(counted, first)
                counted = min(counted, last)
                out[c, y, x] = np.int32(missing if pixel != pixel else counted)


@intrinsic
def _half(typing: Any, number: Any) -> Any:
    """Return the bits of the nearest float16; too large is infinite, as IEEE 754 has it."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        del context, signature
        return builder.bitcast(builder.fptrunc(given[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(number), generate


@njit(cache=True, nogil=True)
def halve(maps, out):
    """Write the bits of the nearest float16 numbers to ``out``, both (c, y, x)."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[c, y, x] = _half(maps[c, y, x])
