"""Pooling of rows, and the greater and lesser of two pixels."""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from pipeline.compiled.lanes import I64, LANES, all_of, at, extreme, picked

MADE_WITH = {"lanes": "e7e3560ff697"}

COPY, MAX, MIN, SUM = range(4)
"""How the rows and columns under a pooling window are joined; COPY where there is no pooling."""


def _of_two(sign: str) -> Any:
    """Return the greater or lesser of two pixels, as `extreme` has it."""

    @intrinsic
    def join(typing: Any, a: Any, b: Any) -> Any:
        del typing

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            del context, signature
            return extreme(builder, sign, *given)

        return types.float32(a, b), generate

    return join


maximum, minimum = _of_two(">"), _of_two("<")


def squares(builder: Any, left: Any, right: Any, greater: Any = extreme) -> Any:
    """Return the ``greater`` of each two pixels that lie side by side in two vectors, and 0 added."""
    even, odd = (picked(builder, left, right, list(range(n, 2 * LANES, 2))) for n in (0, 1))
    return builder.fadd(greater(builder, ">", even, odd), all_of(0.0))


@intrinsic
def _squares(typing: Any, source: Any, top: Any, low: Any, target: Any, to: Any) -> Any:
    """Write the maxima of `LANES` squares of 2 × 2 pixels side by side, and 0 added, to ``target[to]`` and after it.

    The squares begin at ``source[top]`` and ``source[low]``; both arrays are flat.
    """
    del typing
    signature = types.void(source, top, low, target, to)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        pixels, out = (context.make_array(signature.args[n])(context, builder, given[n]).data for n in (0, 3))

        def of_columns(first: int) -> Any:
            upper, lower = (builder.load(at(builder, pixels, builder.add(n, I64(first))), align=4) for n in given[1:3])
            return extreme(builder, ">", upper, lower)

        made = squares(builder, of_columns(0), of_columns(LANES))
        builder.store(made, at(builder, out, given[4]), align=4)
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True, nogil=True, error_model="numpy")
def pool(source, rows, columns, window, stride, op, tall, target, to, width):
    """Join rows, then the columns under each window, into ``width`` pixels from ``target[to]`` on.

    Arrays are flat, and places are handed on instead of views, each of which costs as much as the work on many pixels.

    Parameters
    ----------
    source
        Where the rows lie, each of ``columns`` pixels.
    rows
        A range of rows, counted on and on, the ring they lie in, and where that begins: (first, last, ring, start).
    window, stride
        Of columns.
    op
        How to join.
    tall
        Room for a row: ``columns`` pixels.
    """
    first, last, ring, start = rows
    top = start + first % ring * columns
    if window == 2 and stride == 2 and last - first == 2 and op == MAX and width >= LANES:  # by far the most frequent
        low = start + (first + 1) % ring * columns
        for x in range(0, width, LANES):
            left = min(x, width - LANES)  # the last ones go back over pixels already made
            _squares(source, top + 2 * left, low + 2 * left, target, to + left)
        return
    tall[:] = source[top : top + columns]
    for y in range(first + 1, last):
        begin = start + y % ring * columns
        row = source[begin : begin + columns]
        if op == MAX:
            for x in range(len(tall)):
                tall[x] = maximum(tall[x], row[x])
        elif op == MIN:
            for x in range(len(tall)):
                tall[x] = minimum(tall[x], row[x])
        else:
            for x in range(len(tall)):
                tall[x] = tall[x] + row[x]
    joined = target[to : to + width]
    for x in range(len(joined)):
        total = tall[x * stride]
        for t in range(1, window):
            pixel = tall[x * stride + t]
            if op == MAX:
                total = maximum(total, pixel)
            elif op == MIN:
                total = minimum(total, pixel)
            else:
                total = total + pixel
        joined[x] = total + np.float32(0)  # all zeros are +0
