"""Convolution, point layers and pooling in one pass over rows of a block: nothing is kept at full resolution.

The sums are chains of fused multiply-adds, a tap at a time in reading order, from 0. A fused multiply-add rounds once
on every processor, so a pixel's bits depend neither on the vector unit nor on where in a block it lies.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled.lanes import I32, I64, LANES, VECTOR, all_of, at, fma, picked
from pipeline.compiled.pooling import maximum, minimum, pool

MADE_WITH = {"lanes": "53d752b57c38", "pooling": "038a8aa7421a"}

DIVIDE, ADD, FLOOR, SCALE, CEILING, LEAK, ABS = range(7)
"""Point steps: x / p, x + p, max(x, p), x · p, min(x, p), x · p where x is not positive, and x without its sign; p is a
number for each map."""

VECTORS = {1: 6, 2: 4, 3: 5, 4: 4} if LANES == 16 else {1: 6, 2: 4, 3: 3, 4: 2}
"""Vectors side by side for a number of features at a time: their sums must all stay in registers, 32 or 16 of them."""


def _micro(features: int) -> Any:
    """Return the innermost kernel: the sums of some features over a run of pixels, kept in registers over all taps.

    It adds ``weights[w + t · features + f] · source[s + offsets[t] + x]`` over the taps t, for each feature f and
    each of ``LANES · VECTORS[features]`` pixels x, into ``target[d + f · plane + x]``.
    """
    vectors = VECTORS[features]

    @intrinsic
    def micro(
        typing: Any, source: Any, s: Any, offsets: Any, weights: Any, w: Any, taps: Any, target: Any, d: Any, plane: Any
    ) -> Any:
        del typing
        signature = types.void(source, s, offsets, weights, w, taps, target, d, plane)

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            def data(place: int) -> Any:
                return context.make_array(signature.args[place])(context, builder, given[place]).data

            s, w, taps, d, plane = (given[place] for place in (1, 4, 5, 7, 8))
            source, weights, target = (builder.gep(data(place), [start]) for place, start in ((0, s), (3, w), (6, d)))
            offsets = data(2)
            multiply_add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32"
            )
            sums = [[cgutils.alloca_once_value(builder, all_of(0.0)) for _ in range(vectors)] for _ in range(features)]
            for place in (p for row in sums for p in row):
                builder.store(all_of(0.0), place)  # the function may come here again
            with cgutils.for_range(builder, taps) as loop:
                start = builder.gep(source, [builder.load(builder.gep(offsets, [loop.index]))])
                pixels = [builder.load(at(builder, start, I64(v * LANES)), align=4) for v in range(vectors)]
                first = builder.mul(loop.index, I64(features))
                for f in range(features):
                    weight = builder.load(builder.gep(weights, [builder.add(first, I64(f))]))
                    lone = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), weight, I32(0))
                    spread = picked(builder, lone, lone, [0] * LANES)
                    for v in range(vectors):
                        total = builder.call(multiply_add, [spread, pixels[v], builder.load(sums[f][v])])
                        builder.store(total, sums[f][v])
            for f in range(features):
                row = builder.gep(target, [builder.mul(plane, I64(f))])
                for v in range(vectors):
                    builder.store(builder.load(sums[f][v]), at(builder, row, I64(v * LANES)), align=4)
            return context.get_dummy_value()

        return signature, generate

    return micro


_micro1, _micro2, _micro3, _micro4 = (_micro(features) for features in (1, 2, 3, 4))
_WIDTH1, _WIDTH2, _WIDTH3, _WIDTH4 = (LANES * VECTORS[features] for features in (1, 2, 3, 4))


@njit(cache=True, nogil=True, error_model="numpy")
def _correlate(source, s, offsets, weights, w, features, target, d, plane, columns):
    """Make one row of maps for up to four features; the last run of vectors goes back over pixels already made."""
    taps = len(offsets)
    width = (_WIDTH1, _WIDTH2, _WIDTH3, _WIDTH4)[features - 1]
    if columns < width:
        for f in range(features):
            for x in range(columns):
                total = np.float32(0)
                for t in range(taps):
                    total = fma(weights[w + t * features + f], source[s + offsets[t] + x], total)
                target[d + f * plane + x] = total
        return
    for start in range(0, columns, width):
        x = min(start, columns - width)
        if features == 1:
            _micro1(source, s + x, offsets, weights, w, taps, target, d + x, plane)
        elif features == 2:
            _micro2(source, s + x, offsets, weights, w, taps, target, d + x, plane)
        elif features == 3:
            _micro3(source, s + x, offsets, weights, w, taps, target, d + x, plane)
        else:
            _micro4(source, s + x, offsets, weights, w, taps, target, d + x, plane)


@njit(cache=True, nogil=True, error_model="numpy")
def _point(pixels, start, stop, code, parameter):
    """Do one point step on a run of pixels, in place."""
    row = pixels[start:stop]  # from 0 on, or the loops would look for places below it, one by one
    if code == DIVIDE:
        for x in range(len(row)):
            row[x] = row[x] / parameter
    elif code == ADD:
        for x in range(len(row)):
            row[x] = row[x] + parameter
    elif code == SCALE:
        for x in range(len(row)):
            row[x] = row[x] * parameter
    elif code == CEILING:
        for x in range(len(row)):
            row[x] = minimum(row[x], parameter)
    elif code == LEAK:
        for x in range(len(row)):
            row[x] = row[x] if row[x] > 0 else row[x] * parameter
    elif code == ABS:
        for x in range(len(row)):
            row[x] = abs(row[x])
    else:
        # With a constant 0 this would become a masked store, which is slow on some processors.
        for x in range(len(row)):
            row[x] = maximum(row[x], parameter)


@njit(cache=True, nogil=True, error_model="numpy")
def run_rows(source, pitch, offsets, weights, groups, rows, columns, codes, parameters, before, pooling, shape, out):
    """Make maps row by row: a convolution (or, without groups, a copy), then point steps, then pooling.

    Parameters
    ----------
    source
        The padded block, float32, flat.
    pitch
        Pixels of ``source`` from one row of the convolution to the next.
    offsets
        For each tap its pixels from a window's start.
    weights
        Flat; for each group its taps, and for each tap one weight a feature.
    groups
        For each group of up to four features: where its maps start in ``source``, where its weights start, how many
        features it has, and the first map it makes.
    rows, columns
        Of the convolution's maps.
    codes, parameters
        Of the point steps: one code each, and for each step a number a map.
    before
        How many point steps come before pooling; the others come after it.
    pooling
        How to join, then window and stride for y and for x.
    shape
        Of what is made: maps, rows, columns.
    out
        Where: flat float32, the pixels from one map to the next, and from one row to the next.
    """
    maps, height, width = shape
    made, beside, below = out
    op, tall_window, tall_stride, wide_window, wide_stride = pooling
    ring = tall_window if op else rows
    kept = np.empty(maps * ring * columns, np.float32) if op else made
    plane, across = (ring * columns, columns) if op else (beside, below)
    tall = np.empty(columns, np.float32)
    steps = len(codes)
    signed = False  # whether a step after pooling may make a −0
    for p in range(before, steps):
        signed |= codes[p] not in (ADD, FLOOR, CEILING)
    upto = 0
    for o in range(height):
        first = o * tall_stride
        last = min(first + tall_window, rows)
        for y in range(max(first, upto), last):
            place = (y % ring) * across
            for g in range(len(groups)):
                _correlate(
                    source,
                    groups[g, 0] + y * pitch,
                    offsets,
                    weights,
                    groups[g, 1],
                    groups[g, 2],
                    kept,
                    groups[g, 3] * plane + place,
                    plane,
                    columns,
                )
            for m in range(maps):
                to = m * plane + place
                if not len(groups):
                    start = m * rows * pitch + y * pitch
                    kept[to : to + columns] = source[start : start + columns]
                for p in range(before):
                    _point(kept, to, to + columns, codes[p], parameters[p, m])
        upto = last
        if op:
            for m in range(maps):
                to = m * beside + o * below
                pool(kept, (first, last, ring, m * plane), columns, wide_window, wide_stride, op, tall, made, to, width)
                for p in range(before, steps):
                    _point(made, to, to + width, codes[p], parameters[p, m])
                if signed:
                    _point(made, to, to + width, ADD, np.float32(0))
