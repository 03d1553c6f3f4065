"""Loops over pixels that NumPy takes several passes for: from stored numbers to map values, and the range of maps.

But for `look` and `survey`, the pixels of a row lie side by side.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled.lanes import I64, LANES, VECTOR, at, fma, line, row_of

MADE_WITH = {"lanes": "e7e3560ff697"}


@njit(cache=True, nogil=True)
def look_up(numbers, table, out):
    """Write ``table[numbers]`` to ``out``, both (c, y, x)."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            source, target = line(numbers, c, y), line(out, c, y)
            for x in range(len(target)):
                target[x] = table[source[x]]


@njit(cache=True, nogil=True)
def stretched(number, sign, shift, high, low, beyond):
    """Return ``(number · sign + shift) · (high + low) + beyond`` of a small integer, in float32.

    Where the first sum is exact, ``high`` is a factor in float32, ``low`` what it has more, and ``beyond`` small, this
    is in twice the digits of float32, rounded once.
    """
    centred = fma(np.float32(number), sign, shift)
    return fma(centred, high, fma(centred, low, beyond))


@njit(cache=True, nogil=True)
def stretch(numbers, sign, shift, high, low, beyond, out):
    """Write `stretched` numbers to float32 ``out``, both (c, y, x)."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            source, target = line(numbers, c, y), line(out, c, y)
            for x in range(len(target)):
                target[x] = stretched(source[x], sign, shift, high, low, beyond)


@intrinsic
def _look(typing: Any, maps: Any, c: Any, y: Any, vectors: Any, seen: Any) -> Any:
    """Look at the first vectors of a row of (c, y, x) ``maps`` whose pixels lie side by side.

    ``seen`` are three vectors that it goes on with: the least and the greatest numbers, and NaN where there was one.
    """
    del typing
    signature = types.void(maps, c, y, vectors, seen)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, given[0])
        kept = context.make_array(signature.args[4])(context, builder, given[4]).data
        row = row_of(builder, array, given[1:3])
        held = [at(builder, kept, I64(n * LANES)) for n in range(3)]
        sums = [cgutils.alloca_once(builder, VECTOR) for _ in held]
        for place, start in zip(sums, held, strict=True):
            builder.store(builder.load(start, align=4), place)
        with cgutils.for_range(builder, given[3]) as loop:
            pixels = builder.load(at(builder, row, builder.mul(loop.index, I64(LANES))), align=4)
            low, high, strange = (builder.load(place) for place in sums)
            # As vector units do it: of a number and NaN the second one.
            builder.store(builder.select(builder.fcmp_ordered("<", pixels, low), pixels, low), sums[0])
            builder.store(builder.select(builder.fcmp_ordered(">", pixels, high), pixels, high), sums[1])
            is_nan = builder.fcmp_unordered("uno", pixels, pixels)
            builder.store(builder.select(is_nan, pixels, strange), sums[2])
        for place, start in zip(sums, held, strict=True):
            builder.store(builder.load(place), start, align=4)
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True, nogil=True)
def nothing_seen():
    """Return what `look` goes on with, before it has looked at anything."""
    seen = np.zeros((3, LANES), np.float32)
    seen[0], seen[1] = np.inf, -np.inf
    return seen


@njit(cache=True, nogil=True)
def look(maps, c, y, seen):
    """Look at a row of (c, y, x) maps for the least and the greatest number, and for NaN."""
    width = maps.shape[2]
    vectors = width // LANES if maps.strides[2] == maps.itemsize else 0
    _look(maps, c, y, vectors, seen)
    for x in range(vectors * LANES, width):
        pixel = maps[c, y, x]
        seen[0, 0] = min(seen[0, 0], pixel)
        seen[1, 0] = max(seen[1, 0], pixel)
        if pixel != pixel:
            seen[2, 0] = pixel


@njit(cache=True, nogil=True)
def ends(seen):
    """Return the least and the greatest number that `look` has seen; (inf, −inf) where no pixel was a number."""
    # With 0 added no −0 tells which of two zeros was seen first.
    return seen[0].min() + np.float32(0), seen[1].max() + np.float32(0)


@njit(cache=True, nogil=True)
def survey(maps):
    """Give every NaN of (c, y, x) maps the same bits, and return the least and the greatest number.

    Which sign and payload of NaN survives an operation depends on a vector loop's lanes. (inf, −inf) where no pixel is
    a number.
    """
    seen = nothing_seen()
    for c in range(maps.shape[0]):
        for y in range(maps.shape[1]):
            look(maps, c, y, seen)
    if np.isnan(seen[2]).any():
        for c in range(maps.shape[0]):
            for y in range(maps.shape[1]):
                for x in range(maps.shape[2]):
                    if maps[c, y, x] != maps[c, y, x]:
                        maps[c, y, x] = np.nan
    return ends(seen)
