"""Convolution, point layers and pooling in one pass over rows of a block: nothing is kept at full resolution.

The sums are chains of fused multiply-adds, a tap at a time in reading order, from 0. A fused multiply-add rounds once
on every processor, so a pixel's bits depend neither on the vector unit nor on where in a block it lies.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

COPY, MAX, MIN, SUM = range(4)
"""How the rows and columns under a pooling window are joined; COPY where there is no pooling."""

DIVIDE, ADD, FLOOR, SCALE, CEILING, LEAK, ABS = range(7)
"""Point steps: x / p, x + p, max(x, p), x · p, min(x, p), x · p where x is not positive, and x without its sign; p is a
number for each map."""

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Pixels of one vector register; more registers are one vector to the compiler, fewer are two."""

VECTORS = {1: 6, 2: 4, 3: 3, 4: 2}
"""Vectors side by side for a number of features at a time: their sums must all stay in registers."""

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


def _micro(features: int) -> Any:
    """Return the innermost kernel: the sums of some features over a run of pixels, kept in registers over all taps.

    It adds ``weights[w + t · features + f] · source[s + offsets[t] + x]`` over the taps t, for each feature f and
    each of ``LANES · VECTORS[features]`` pixels x, into ``target[d + f · plane + x]``.
    """
    vector = ir.VectorType(_F32, LANES)
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

            def vector_at(pointer: Any, pixels: int) -> Any:
                return builder.bitcast(builder.gep(pointer, [_I64(pixels)]), vector.as_pointer())

            s, w, taps, d, plane = (given[place] for place in (1, 4, 5, 7, 8))
            source, weights, target = (builder.gep(data(place), [start]) for place, start in ((0, s), (3, w), (6, d)))
            offsets = data(2)
            multiply_add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
            )
            zero = ir.Constant(vector, [0.0] * LANES)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(vectors)] for _ in range(features)]
            for place in (p for row in sums for p in row):
                builder.store(zero, place)  # the function may come here again
            with cgutils.for_range(builder, taps) as loop:
                start = builder.gep(source, [builder.load(builder.gep(offsets, [loop.index]))])
                pixels = [builder.load(vector_at(start, v * LANES), align=4) for v in range(vectors)]
                first = builder.mul(loop.index, _I64(features))
                for f in range(features):
                    weight = builder.load(builder.gep(weights, [builder.add(first, _I64(f))]))
                    lone = builder.insert_element(ir.Constant(vector, ir.Undefined), weight, _I32(0))
                    spread = builder.shuffle_vector(lone, lone, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))
                    for v in range(vectors):
                        total = builder.call(multiply_add, [spread, pixels[v], builder.load(sums[f][v])])
                        builder.store(total, sums[f][v])
            for f in range(features):
                row = builder.gep(target, [builder.mul(plane, _I64(f))])
                for v in range(vectors):
                    builder.store(builder.load(sums[f][v]), vector_at(row, v * LANES), align=4)
            return context.get_dummy_value()

        return signature, generate

    return micro


_micro1, _micro2, _micro3, _micro4 = (_micro(features) for features in (1, 2, 3, 4))
_WIDTH1, _WIDTH2, _WIDTH3, _WIDTH4 = (LANES * VECTORS[features] for features in (1, 2, 3, 4))


@intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c, rounded once, for one pixel."""
    del typing

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        del context, signature
        return builder.fma(*given)

    return types.float32(a, b, c), generate


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
                    total = _fma(weights[w + t * features + f], source[s + offsets[t] + x], total)
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


def _extreme(name: str) -> Any:
    """Return IEEE 754-2019's ``maximum`` or ``minimum`` of two pixels: NaN wins, and −0 lies below +0."""

    @intrinsic
    def join(typing: Any, a: Any, b: Any) -> Any:
        del typing

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            del context, signature
            kind = ir.FunctionType(_F32, [_F32, _F32])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.f32"), given)

        return types.float32(a, b), generate

    return join


_maximum, _minimum = _extreme("maximum"), _extreme("minimum")


@njit(cache=True, nogil=True, error_model="numpy")
def _point(row, code, parameter):
    """Do one point step on a row, in place."""
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
            row[x] = _minimum(row[x], parameter)
    elif code == LEAK:
        for x in range(len(row)):
            row[x] = row[x] if row[x] > 0 else row[x] * parameter
    elif code == ABS:
        for x in range(len(row)):
            row[x] = abs(row[x])
    else:
        # With a constant 0 this would become a masked store, which is slow on some processors.
        for x in range(len(row)):
            row[x] = _maximum(row[x], parameter)


@njit(cache=True, nogil=True, error_model="numpy")
def _pool(rows, first, last, ring, window, stride, op, tall, target):
    """Join the rows ``first`` … ``last - 1`` of a ring of rows, then the columns under each window."""
    zero = np.float32(0)  # added last: all zeros are +0
    top = rows[first % ring]
    if window == 2 and stride == 2 and last - first == 2 and op == MAX:  # by far the most frequent: in one loop
        low = rows[(first + 1) % ring]
        for x in range(len(target)):
            left, right = _maximum(top[2 * x], low[2 * x]), _maximum(top[2 * x + 1], low[2 * x + 1])
            target[x] = _maximum(left, right) + zero
        return
    tall[:] = top
    for y in range(first + 1, last):
        row = rows[y % ring]
        if op == MAX:
            for x in range(len(tall)):
                tall[x] = _maximum(tall[x], row[x])
        elif op == MIN:
            for x in range(len(tall)):
                tall[x] = _minimum(tall[x], row[x])
        else:
            for x in range(len(tall)):
                tall[x] = tall[x] + row[x]
    for x in range(len(target)):
        total = tall[x * stride]
        for t in range(1, window):
            pixel = tall[x * stride + t]
            if op == MAX:
                total = _maximum(total, pixel)
            elif op == MIN:
                total = _minimum(total, pixel)
            else:
                total = total + pixel
        target[x] = total + zero


@njit(cache=True, nogil=True, error_model="numpy")
def run_rows(source, pitch, offsets, weights, groups, rows, columns, codes, parameters, before, pooling, out):
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
    out
        (maps, rows, columns) to fill, float32.
    """
    maps, height, width = out.shape
    op, tall_window, tall_stride, wide_window, wide_stride = pooling
    ring = tall_window if op else rows
    kept = np.empty((maps, ring, columns), np.float32) if op else out
    target = kept.reshape(kept.size)
    plane = ring * columns
    tall = np.empty(columns, np.float32)
    made = 0
    for o in range(height):
        first = o * tall_stride
        last = min(first + tall_window, rows)
        for y in range(max(first, made), last):
            place = (y % ring) * columns
            for g in range(len(groups)):
                s, w, features, m = groups[g]
                _correlate(
                    source, s + y * pitch, offsets, weights, w, features, target, m * plane + place, plane, columns
                )
            for m in range(maps):
                row = kept[m, y % ring]
                if not len(groups):
                    start = m * rows * pitch + y * pitch
                    for x in range(columns):
                        row[x] = source[start + x]
                for p in range(before):
                    _point(row, codes[p], parameters[p, m])
        made = last
        if op:
            for m in range(maps):
                _pool(kept[m], first, last, ring, wide_window, wide_stride, op, tall, out[m, o])
                if before < len(codes):
                    for p in range(before, len(codes)):
                        _point(out[m, o], codes[p], parameters[p, m])
                    for x in range(width):
                        out[m, o, x] = out[m, o, x] + np.float32(0)  # a division may have made a −0
