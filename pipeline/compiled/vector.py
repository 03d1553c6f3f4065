"""Convolution, point layers and pooling in one pass over rows of a block: nothing is kept at full resolution.

The sums are chains of fused multiply-adds, a tap at a time in reading order, from 0. A fused multiply-add rounds once
on every processor, so a pixel's bits depend neither on the vector unit nor on where in a block it lies.
"""

import numpy as np
from numba import njit

from pipeline.compiled.lanes import LANES, fma
from pipeline.compiled.micro import PAIRS, VECTORS, micro
from pipeline.compiled.pooling import MAX, maximum, minimum, pool

MADE_WITH = {"lanes": "e7e3560ff697", "micro": "a6e5f3be298c", "pooling": "9e11db3e0d39"}

DIVIDE, ADD, FLOOR, SCALE, CEILING, LEAK, ABS = range(7)
"""Point steps: x / p, x + p, max(x, p), x · p, min(x, p), x · p where x is not positive, and x without its sign; p is a
number for each map."""

_micro1, _micro2, _micro3, _micro4 = (micro(features, pooled=False) for features in (1, 2, 3, 4))
_pooled1, _pooled2, _pooled3, _pooled4 = (micro(min(n, max(PAIRS)), pooled=True) for n in (1, 2, 3, 4))
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
