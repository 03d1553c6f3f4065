"""The innermost kernels of a convolution: sums of a run of pixels, kept in vector registers over all taps."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled.lanes import I64, LANES, alike, all_of, at, extreme, extreme_number, multiply_add
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


def _pooled(builder: Any, sums: Any, floor: Any, greater: Any) -> Any:
    """Return the greatest of each square of 2 × 2 sums, lists of vectors of two rows, with 0 added, and of a floor."""
    tall = [greater(builder, ">", *pair) for pair in zip(*sums, strict=True)]
    made = [squares(builder, tall[v], tall[v + 1], greater) for v in range(0, len(tall), 2)]
    return [greater(builder, ">", vector, floor) for vector in made]


def _all_numbers(builder: Any, sums: Any) -> Any:
    """Say whether no pixel of lists of vectors, of two rows each, is NaN."""
    mask = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [1] * LANES)
    for pair in (pair for rows in sums for pair in zip(*rows, strict=True)):
        mask = builder.and_(mask, builder.fcmp_ordered("ord", *pair))
    return builder.icmp_signed("==", builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(LANES)(-1))


def micro(features: int, *, pooled: bool) -> Any:
    """Return the innermost kernel: the sums of some features over a run of pixels, kept in registers over all taps.

    It makes those at ``source[s + x]`` and after it, for each of ``LANES · VECTORS[features]`` pixels x, and writes
    them to ``target[d + f · plane + x]``. Or ``pooled``: those of ``LANES · PAIRS[features]`` pixels and as many in the
    row ``pitch`` further on, and the greatest of each square of 2 × 2 of them, with 0 added; or ``floors[m + f]`` where
    that is greater. ``pair`` is (pitch, floors, m) then, and else None.
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
        signature = types.void(source, s, offsets, weights, w, taps, target, d, plane, pair)

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            source, offsets, weights, target = (
                context.make_array(signature.args[place])(context, builder, given[place]).data for place in (0, 2, 3, 6)
            )
            s, w, taps, d, plane, pair = (given[place] for place in (1, 4, 5, 7, 8, 9))
            tables = offsets, builder.gep(weights, [w]), taps
            rows = [builder.gep(target, [builder.add(d, builder.mul(plane, I64(f)))]) for f in range(features)]

            def write(f: int, made: Any) -> None:
                for v, vector in enumerate(made):
                    builder.store(vector, at(builder, rows[f], I64(v * LANES)), align=4)

            if not pooled:
                (sums,) = _sums(builder, source, [s], tables, features, vectors)
                for f in range(features):
                    write(f, sums[f])
                return context.get_dummy_value()
            pitch, floors, m = cgutils.unpack_tuple(builder, pair)
            lowest = context.make_array(signature.args[9][1])(context, builder, floors).data
            least = [
                alike(builder, builder.load(builder.gep(lowest, [builder.add(m, I64(f))]))) for f in range(features)
            ]
            both = list(
                zip(*_sums(builder, source, [s, builder.add(s, pitch)], tables, features, vectors), strict=True)
            )
            # With NaN in mind a maximum takes four steps, and else one.
            with builder.if_else(_all_numbers(builder, both), likely=True) as (plain, strange):
                for branch, greater in ((plain, extreme_number), (strange, extreme)):
                    with branch:
                        for f in range(features):
                            write(f, _pooled(builder, both[f], least[f], greater))
            return context.get_dummy_value()

        return signature, generate

    return kernel
