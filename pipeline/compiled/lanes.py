"""Vector registers as compiled loops use them: their pixels, and steps on all of them at once, in LLVM's own words."""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Pixels of one vector register; more registers are one vector to the compiler, fewer are two."""

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()

VECTOR = ir.VectorType(F32, LANES)


def flat(maps: NDArray[Any]) -> tuple[NDArray[Any], int, int]:
    """Return what loops go through: maps (c, y, x) as one row, and the pixels from a map and from a row to the next.

    The pixels of a row must lie side by side; rows and maps may lie apart. A kind of array more would be one more that
    every loop is compiled for.

    >>> row, beside, below = flat(np.zeros((2, 5, 7), np.float32)[:, 1:3, 2:6])
    >>> len(row), beside, below
    (46, 35, 7)
    """
    beside, below, pixel = (step // maps.itemsize for step in maps.strides)
    if pixel != 1 and maps.shape[2] > 1:
        raise ValueError("the pixels of a row must lie side by side")
    last = sum((n - 1) * step for n, step in zip(maps.shape, (beside, below, 1), strict=True))
    return as_strided(maps, (last + 1,), (maps.itemsize,)), beside, below


def side_by_side(maps: NDArray[Any]) -> NDArray[Any]:
    """Return maps (c, y, x) whose pixels of a row lie side by side: a copy, if these do not."""
    return maps if maps.strides[2] == maps.itemsize else np.ascontiguousarray(maps)


def at(builder: Any, pointer: Any, pixels: Any) -> Any:
    """Return where the vector lies that begins so many pixels from a pointer to pixels."""
    return builder.bitcast(builder.gep(pointer, [pixels]), VECTOR.as_pointer())


def all_of(number: float) -> Any:
    """Return a vector of one number."""
    return ir.Constant(VECTOR, [number] * LANES)


def alike(builder: Any, number: Any) -> Any:
    """Return a vector of one number that is not known before the loop runs."""
    lone = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, I32(0))
    return picked(builder, lone, lone, [0] * LANES)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c of three vectors, each pixel rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), [a, b, c])


def picked(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    """Return a vector of pixels of two vectors, by their places in the first and on in the second."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, LANES), places))


def extreme(builder: Any, sign: str, first: Any, second: Any) -> Any:
    """Return the greater (``>``) or lesser (``<``) of two pixels, or of each pair of two vectors' pixels.

    NaN wins, and of two zeros the second one is taken. LLVM's own ``maximum`` also tells −0 from +0, in more steps;
    here whoever asks adds 0 afterwards, or compares with +0.
    """
    return builder.select(
        builder.fcmp_unordered("uno", first, first), first, extreme_number(builder, sign, first, second)
    )


def extreme_number(builder: Any, sign: str, first: Any, second: Any) -> Any:
    """Return what `extreme` does where both are numbers, in one step of four; a NaN that stands first is lost."""
    return builder.select(builder.fcmp_ordered(sign, first, second), first, second)


def row_of(builder: Any, array: Any, places: Any) -> Any:
    """Return where the row at places (c, y) of an array (c, y, x) begins."""
    byte = builder.ptrtoint(array.data, I64)
    for place, step in zip(places, cgutils.unpack_tuple(builder, array.strides), strict=False):
        byte = builder.add(byte, builder.mul(place, step))
    return builder.inttoptr(byte, array.data.type)


@intrinsic
def line(typing: Any, array: Any, c: Any, y: Any) -> Any:
    """Return the row (c, y) of an array (c, y, x) whose pixels lie side by side along x, as such a row.

    A slice says nothing of how its pixels lie, so loops over it take them one by one; and it is counted as a reader of
    its array, which takes as long as the work on many pixels. This one must not outlive its array.
    """
    del typing
    row = types.Array(array.dtype, 1, "C")
    signature = row(array, c, y)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        of = context.make_array(signature.args[0])(context, builder, given[0])
        length = cgutils.unpack_tuple(builder, of.shape)[2]
        return _array(context, builder, row, row_of(builder, of, given[1:]), [length], [of.itemsize])

    return signature, generate


@intrinsic
def rest(typing: Any, row: Any, start: Any) -> Any:
    """Return what follows a place of a row whose pixels lie side by side, as such a row; it must not outlive it."""
    del typing
    signature = row(row, start)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        of = context.make_array(signature.args[0])(context, builder, given[0])
        length = builder.sub(cgutils.unpack_tuple(builder, of.shape)[0], given[1])
        return _array(context, builder, row, builder.gep(of.data, [given[1]]), [length], [of.itemsize])

    return signature, generate


@intrinsic
def pixels_at(typing: Any, kind: Any, address: Any, count: Any) -> Any:
    """Return so many pixels that lie side by side from an address on, as a row of the type of an array ``kind``."""
    del typing
    row = types.Array(kind.dtype, 1, "C")
    signature = row(kind, address, count)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        of = context.make_array(signature.args[0])(context, builder, given[0])
        data = builder.inttoptr(given[1], of.data.type)
        return _array(context, builder, row, data, [given[2]], [of.itemsize])

    return signature, generate


@intrinsic
def maps_of(typing: Any, row: Any, beside: Any, below: Any, shape: Any) -> Any:
    """Return maps (c, y, x) of a shape that begin with a row; so many pixels lie from a map and from a row to the next.

    They must not outlive it.
    """
    del typing
    maps = types.Array(row.dtype, 3, "A")
    signature = maps(row, beside, below, shape)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        of = context.make_array(signature.args[0])(context, builder, given[0])
        strides = [builder.mul(of.itemsize, step) for step in given[1:3]]
        sizes = cgutils.unpack_tuple(builder, given[3])
        return _array(context, builder, maps, of.data, sizes, [*strides, of.itemsize])

    return signature, generate


def _array(context: Any, builder: Any, kind: Any, data: Any, shape: Any, strides: list[Any]) -> Any:
    """Return an array that says of no memory that it is its own; pixels lie side by side along its last axis."""
    made = context.make_array(kind)(context, builder)
    populate_array(made, data=data, shape=shape, strides=strides, itemsize=strides[-1], meminfo=None)
    return made._getvalue()  # noqa: SLF001 - as Numba's own extensions do


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c, rounded once, for one pixel."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        del context, signature
        return builder.fma(*given)

    return a(a, b, c), generate
