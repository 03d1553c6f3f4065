"""Convolution, point layers and pooling in one pass over rows of a block: nothing is kept at full resolution.

The sums are chains of fused multiply-adds, a tap at a time in reading order, from 0. A fused multiply-add rounds once
on every processor, so a pixel's bits depend neither on the vector unit nor on where in a block it lies.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled.lanes import I64, LANES, alike, all_of, at, extreme, fma, multiply_add
from pipeline.compiled.pooling import MAX, maximum, minimum, pool, squares

MADE_WITH = {"lanes": "226a31a48a2a", "pooling": "38b631f8c45b"}

DIVIDE, ADD, FLOOR, SCALE, CEILING, LEAK, ABS = range(7)
"""Point steps: x / p, x + p, max(x, p), x · p, min(x, p), x · p where x is not positive, and x without its sign; p is a
number for each map."""

VECTORS = {1: 6, 2: 4, 3: 5, 4: 4} if LANES == 16 else {1: 6, 2: 4, 3: 3, 4: 2}
"""Vectors side by side for a number of features at a time: their sums must all stay in registers, 32 or 16 of them."""

PAIRS = {1: 8, 2: 6, 3: 4, 4: 2} if LANES == 16 else {1: 4, 2: 2, 3: 2}
"""The same, an even number, where the sums of two rows are made at a time."""


def _sums(builder: Any, source: Any, starts: Any, tables: Any, features: int, vectors: int) -> Any:
    """Return the sums of some features over a run of pixels, a list of vectors for each of the ``starts`` of runs.

    They are ``weights[t · features + f] · source[start + offsets[t] + x]``, added up over the taps t in registers.
    """
    offsets, weights, taps = tables
    kept = [
        [[cgutils.alloca_once_value(builder, all_of(0.0)) for _ in range(vectors)] for _ in range(features)]
        for _ in starts
    ]
    for place in (place for run in kept for row in run for place in row):
        builder.store(all_of(0.0), place)  # the function may come here again
    with cgutils.for_range(builder, taps) as loop:
        first = builder.mul(loop.index, I64(features))
        spread = []
        for f in range(features):
            weight = builder.load(builder.gep(weights, [builder.add(first, I64(f))]))
            spread.append(alike(builder, weight))
        tap = builder.load(builder.gep(offsets, [loop.index]))
        for start, run in zip(starts, kept, strict=True):
            row = builder.gep(source, [builder.add(start, tap)])
            for v in range(vectors):
                pixels = builder.load(at(builder, row, I64(v * LANES)), align=4)
                for f in range(features):
                    total = multiply_add(builder, spread[f], pixels, builder.load(run[f][v]))
                    builder.store(total, run[f][v])
    return [[[builder.load(place) for place in row] for row in run] for run in kept]


def _micro(features: int, *, pooled: bool) -> Any:
    """Return the innermost kernel: the sums of some features over a run of pixels, kept in registers over all taps.

    It makes those at ``source[s + x]`` and after it, for each of ``LANES · VECTORS[features]`` pixels x, and writes
    them to ``target[d + f · plane + x]``. Or ``pooled``: those of ``LANES · PAIRS[features]`` pixels and as many in the
    row ``pitch`` further on, and the greatest of each square of 2 × 2 of them, with 0 added; or ``floors[m + f]`` where
    that is greater. ``pair`` is (pitch, floors, m) then, and else None.
    """
    vectors = PAIRS[features] if pooled else VECTORS[features]

    @intrinsic
    def micro(
        typing: Any,
        source: Any,
        s: Any,
        offsets: Any,
        weights: Any,
        w: Any,
        taps: Any,
        target: Any,
        d: Any,
        plane: Any,
        pair: Any,
    ) -> Any:
        del typing
        signature = types.void(source, s, offsets, weights, w, taps, target, d, plane, pair)

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            source, offsets, weights, target = (
                context.make_array(signature.args[place])(context, builder, given[place]).data for place in (0, 2, 3, 6)
            )
            s, w, taps, d, plane, pair = (given[place] for place in (1, 4, 5, 7, 8, 9))
            starts = [s]
            if pooled:
                pitch, floors, m = cgutils.unpack_tuple(builder, pair)
                starts.append(builder.add(s, pitch))
                kind = signature.args[9][1]
                lowest = builder.gep(context.make_array(kind)(context, builder, floors).data, [m])
            tables = offsets, builder.gep(weights, [w]), taps
            made = _sums(builder, source, starts, tables, features, vectors)
            for f in range(features):
                row = builder.gep(target, [builder.add(d, builder.mul(plane, I64(f)))])
                pixels = made[0][f]
                if pooled:
                    pixels = [extreme(builder, ">", *pair) for pair in zip(made[0][f], made[1][f], strict=True)]
                    pixels = [squares(builder, *pixels[v : v + 2]) for v in range(0, vectors, 2)]
                    floor = alike(builder, builder.load(builder.gep(lowest, [I64(f)])))
                    pixels = [extreme(builder, ">", vector, floor) for vector in pixels]
                for v, vector in enumerate(pixels):
                    builder.store(vector, at(builder, row, I64(v * LANES)), align=4)
            return context.get_dummy_value()

        return signature, generate

    return micro


_micro1, _micro2, _micro3, _micro4 = (_micro(features, pooled=False) for features in (1, 2, 3, 4))
_pooled1, _pooled2, _pooled3, _pooled4 = (_micro(min(n, max(PAIRS)), pooled=True) for n in (1, 2, 3, 4))
_WIDTH1, _WIDTH2, _WIDTH3, _WIDTH4 = (LANES * VECTORS[features] for features in (1, 2, 3, 4))
_POOLED1, _POOLED2, _POOLED3, _POOLED4 = (LANES * PAIRS.get(features, 0) // 2 for features in (1, 2, 3, 4))


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
            _micro1(source, s + x, offsets, weights, w, taps, target, d + x, plane, None)
        elif features == 2:
            _micro2(source, s + x, offsets, weights, w, taps, target, d + x, plane, None)
        elif features == 3:
            _micro3(source, s + x, offsets, weights, w, taps, target, d + x, plane, None)
        else:
            _micro4(source, s + x, offsets, weights, w, taps, target, d + x, plane, None)


@njit(cache=True, nogil=True, error_model="numpy")
def _correlate_pooled(source, s, offsets, weights, w, features, target, d, plane, pair, columns):
    """Make one row of pooled maps of two rows of sums; the last run of vectors goes back over pixels already made."""
    taps = len(offsets)
    width = (_POOLED1, _POOLED2, _POOLED3, _POOLED4)[features - 1]
    for start in range(0, columns, width):
        x = min(start, columns - width)
        if features == 1:
            _pooled1(source, s + 2 * x, offsets, weights, w, taps, target, d + x, plane, pair)
        elif features == 2:
            _pooled2(source, s + 2 * x, offsets, weights, w, taps, target, d + x, plane, pair)
        elif features == 3:
            _pooled3(source, s + 2 * x, offsets, weights, w, taps, target, d + x, plane, pair)
        else:
            _pooled4(source, s + 2 * x, offsets, weights, w, taps, target, d + x, plane, pair)


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
    paired = op == MAX and pooling[1:] == (2, 2, 2, 2) and before == 0 and len(groups) > 0
    for g in range(len(groups)):
        least = (_POOLED1, _POOLED2, _POOLED3, _POOLED4)[groups[g, 2] - 1]
        paired &= 0 < least <= width
    # A floor that comes first after pooling costs nothing where the sums are.
    folded = before < steps and codes[before] == FLOOR
    floors = parameters[before] if folded else np.full(maps, -np.inf, np.float32)
    upto = 0
    for o in range(height):
        first = o * tall_stride
        last = min(first + tall_window, rows)
        in_registers = paired and last - first == 2
        if in_registers:
            for g in range(len(groups)):
                _correlate_pooled(
                    source,
                    groups[g, 0] + first * pitch,
                    offsets,
                    weights,
                    groups[g, 1],
                    groups[g, 2],
                    made,
                    groups[g, 3] * beside + o * below,
                    beside,
                    (pitch, floors, groups[g, 3]),
                    width,
                )
            upto = last
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
                if not in_registers:
                    rows_of = first, last, ring, m * plane
                    pool(kept, rows_of, columns, wide_window, wide_stride, op, tall, made, to, width)
                for p in range(before + (in_registers and folded), steps):
                    _point(made, to, to + width, codes[p], parameters[p, m])
                if signed:
                    _point(made, to, to + width, ADD, np.float32(0))
