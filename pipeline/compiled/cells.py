"""Cells of 2 × 2 outputs of a convolution with features of 3 × 3, a vector of them at a time: the steps in registers.

A cell comes from a window d of 4 × 4 pixels. With Bᵀd B for each channel, G g Gᵀ for each feature of each channel, and
Aᵀ m A for each map, where m is the sum of their products over the channels, place by place::

    Bᵀ = 1  0 −1  0      G = 1  0  0       Aᵀ = 1  1  1  0
         0  1  1  0          ½  ½  ½            0  1 −1 −1
         0 −1  1  0          ½ −½  ½
         0  1  0 −1          0  0  1

So a convolution becomes 16 products of matrices, features × channels and channels × cells, one for each place of the
4 × 4. S. Winograd, "Arithmetic Complexity of Computations", SIAM 1980; A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016.

The sums go through the channels in their order by fused multiply-adds, which round once on every processor. Each output
comes from its own 3 × 3 pixels alone: a row or column of a window that the block does not have reaches no output that
it does have.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compiled.lanes import F32, I64, LANES, alike, all_of, at, extreme, multiply_add, picked, row_of

PLACES = 16
"""Of a window: 4 × 4."""

ROWS, VECTORS = (8, 3) if LANES == 16 else (4, 3)
"""Features and vectors of cells at a time: their sums must all stay in registers, 32 or 16 of them."""

RUN = LANES * VECTORS
"""Cells at a time."""

SEEN = 2 * LANES + 2
"""Pixels of a row under a vector of cells."""


def _forth(builder: Any, d: Sequence[Any]) -> list[Any]:
    """Return Bᵀd."""
    differences = [builder.fsub(d[a], d[b]) for a, b in ((0, 2), (2, 1), (1, 3))]
    return [differences[0], builder.fadd(d[1], d[2]), *differences[1:]]


def _back(builder: Any, m: Sequence[Any]) -> list[Any]:
    """Return Aᵀm."""
    return [builder.fadd(builder.fadd(m[0], m[1]), m[2]), builder.fsub(builder.fsub(m[1], m[2]), m[3])]


def _load(builder: Any, pointer: Any, pixels: Any) -> Any:
    return builder.load(at(builder, pointer, pixels), align=4)


def _flat(context: Any, builder: Any, signature: Any, given: Any, place: int) -> Any:
    """Return where a flat array, given at a place, has the number that is counted by what is given after it."""
    data = context.make_array(signature.args[place])(context, builder, given[place]).data
    return builder.gep(data, [given[place + 1]])


@intrinsic
def spread(typing: Any, block: Any, c: Any, y: Any, x: Any, last: Any, windows: Any, w: Any, plane: Any) -> Any:
    """Put Bᵀd B of `LANES` cells side by side, from the block's pixel (c, y, x) on, into 16 planes of ``windows``.

    What would be a row after the ``last`` is that one.
    """
    del typing
    signature = types.void(block, c, y, x, last, windows, w, plane)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        source = context.make_array(signature.args[0])(context, builder, given[0])
        c, y, x, last, plane = (given[place] for place in (1, 2, 3, 4, 7))
        target = _flat(context, builder, signature, given, 5)
        rows = []
        for n in range(4):
            wanted = builder.add(y, I64(n))
            there = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
            row = builder.gep(row_of(builder, source, (c, there)), [x])
            columns = []
            for first in (0, 2):
                left, right = (_load(builder, row, I64(first + half)) for half in (0, LANES))
                columns += [picked(builder, left, right, list(range(n, 2 * LANES, 2))) for n in (0, 1)]
            rows.append(_forth(builder, columns))
        for j, column in enumerate(zip(*rows, strict=True)):
            for i, made in enumerate(_forth(builder, column)):
                builder.store(made, at(builder, target, builder.mul(plane, I64(4 * i + j))), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def multiply(
    typing: Any, weights: Any, g: Any, windows: Any, w: Any, pitch: Any, depth: Any, sums: Any, m: Any, more: Any
) -> Any:
    """Make the sums over ``depth`` channels for `ROWS` features and `RUN` cells; ``more`` says to go on with them.

    A channel's weights lie side by side; the cells of the next channel lie ``pitch`` further on.
    """
    del typing
    signature = types.void(weights, g, windows, w, pitch, depth, sums, m, more)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        weights, windows, sums = (_flat(context, builder, signature, given, place) for place in (0, 2, 6))
        pitch, depth, more = (given[place] for place in (4, 5, 8))
        kept = [cgutils.alloca_once_value(builder, all_of(0.0)) for _ in range(ROWS * VECTORS)]
        for place in kept:
            builder.store(all_of(0.0), place)  # the function may come here again
        with builder.if_then(more):
            for n, place in enumerate(kept):
                builder.store(_load(builder, sums, I64(n * LANES)), place)
        with cgutils.for_range(builder, depth) as loop:
            start = builder.gep(windows, [builder.mul(loop.index, pitch)])
            cells = [_load(builder, start, I64(n * LANES)) for n in range(VECTORS)]
            row = builder.gep(weights, [builder.mul(loop.index, I64(ROWS))])
            for r in range(ROWS):
                weight = alike(builder, builder.load(builder.gep(row, [I64(r)])))
                for cell, place in zip(cells, kept[r * VECTORS : (r + 1) * VECTORS], strict=True):
                    builder.store(multiply_add(builder, weight, cell, builder.load(place)), place)
        for n, place in enumerate(kept):
            builder.store(builder.load(place), at(builder, sums, I64(n * LANES)), align=4)
        return context.get_dummy_value()

    return signature, generate


def _finish(*, greatest: bool) -> Any:
    """Return what makes outputs of the sums of `LANES` cells side by side: two rows, or the greatest of each cell."""

    @intrinsic
    def finish(
        typing: Any, sums: Any, m: Any, plane: Any, odd: Any, o: Any, numbers: Any, out: Any, to: Any, below: Any
    ) -> Any:
        """Write max(Aᵀm A / divisor + bias, floor) from ``out[to]`` on; ``numbers`` are these three.

        The second row comes ``below`` pixels further on. A cell that has NaN or infinity makes its number in ``odd``
        NaN.
        """
        del typing
        signature = types.void(sums, m, plane, odd, o, numbers, out, to, below)

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            source, odd, target = (_flat(context, builder, signature, given, place) for place in (0, 3, 6))
            plane, below = given[2], given[8]
            divisor, bias, floor = cgutils.unpack_tuple(builder, given[5])
            sums = [_load(builder, source, builder.mul(plane, I64(place))) for place in range(PLACES)]
            columns = [_back(builder, sums[j::4]) for j in range(4)]
            made = [pixels for row in zip(*columns, strict=True) for pixels in _back(builder, row)]
            total = builder.fadd(builder.fadd(made[0], made[1]), builder.fadd(made[2], made[3]))
            marked = multiply_add(builder, total, all_of(0.0), _load(builder, odd, I64(0)))
            builder.store(marked, at(builder, odd, I64(0)), align=4)
            if greatest:  # what comes after this never decreases, so that this may come first
                made = [extreme(builder, ">", *pair) for pair in (made[:2], made[2:])]
                made = [extreme(builder, ">", *made)]
            kept = [cgutils.alloca_once_value(builder, pixels) for pixels in made]
            for pixels, place in zip(made, kept, strict=True):
                builder.store(pixels, place)
            with builder.if_then(builder.fcmp_unordered("!=", divisor, ir.Constant(F32, 1))):
                for place in kept:
                    builder.store(builder.fdiv(builder.load(place), alike(builder, divisor)), place)
            for n, place in enumerate(kept):
                added = builder.fadd(builder.load(place), alike(builder, bias))
                made[n] = extreme(builder, ">", added, alike(builder, floor))
            if not greatest:  # side by side
                halves = [[(n + first) // 2 + n % 2 * LANES for n in range(LANES)] for first in (0, LANES)]
                made = [picked(builder, a, b, half) for a, b in (made[:2], made[2:]) for half in halves]
            for n, pixels in enumerate(made):
                row = builder.gep(target, [builder.mul(below, I64(n // 2))])
                builder.store(pixels, at(builder, row, I64(n % 2 * LANES)), align=4)
            return context.get_dummy_value()

        return signature, generate

    return finish


finish_all, finish_greatest = _finish(greatest=False), _finish(greatest=True)
