"""The innermost kernels of a convolution: sums of a run of pixels, kept in vector registers over all taps."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled.lanes import I64, LANES, alike, all_of, at, multiply_add, outer
from pipeline.compiled.pooling import squares

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


def micro(features: int, *, pooled: bool) -> Any:
    """Return the innermost kernel: the sums of some features over a run of pixels, kept in registers over all taps.

    It makes those at ``source[s + x]`` and after it, for each of ``LANES · VECTORS[features]`` pixels x, and writes
    them to ``target[d + f · plane + x]``. Or ``pooled``: those of ``LANES · PAIRS[features]`` pixels and as many in the
    row ``pitch`` further on, and the greatest of each square of 2 × 2 of them, with 0 added; or ``floors[m + f]`` where
    that is greater. ``pair`` is (pitch, floors, m) then, and else None.

    It says whether all sums are numbers. ``pooled`` loses NaN now and then, for which it takes a quarter less time.
    """
    vectors = PAIRS[features] if pooled else VECTORS[features]

    @intrinsic
    def kernel(
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
        signature = types.boolean(source, s, offsets, weights, w, taps, target, d, plane, pair)

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
            numbers = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [1] * LANES)
            for f in range(features):
                row = builder.gep(target, [builder.add(d, builder.mul(plane, I64(f)))])
                pixels = made[0][f]
                if pooled:
                    upper, lower = made[0][f], made[1][f]
                    for v in range(vectors):
                        numbers = builder.and_(numbers, builder.fcmp_ordered("ord", upper[v], lower[v]))
                    pixels = [outer(builder, ">", upper[v], lower[v]) for v in range(vectors)]
                    pixels = [squares(builder, pixels[v], pixels[v + 1], outer) for v in range(0, vectors, 2)]
                    floor = alike(builder, builder.load(builder.gep(lowest, [I64(f)])))
                    pixels = [outer(builder, ">", vector, floor) for vector in pixels]
                for v, vector in enumerate(pixels):
                    builder.store(vector, at(builder, row, I64(v * LANES)), align=4)
            return builder.icmp_signed("==", builder.bitcast(numbers, ir.IntType(LANES)), ir.IntType(LANES)(-1))

        return signature, generate

    return kernel
