"""Convolution, point layers and pooling of raw integers, a strip of rows at a time.

The map values of a strip are made in a buffer that stays close to the processor; those of a whole block would go to
memory and come back.
"""

import numpy as np
from numba import njit

from pipeline.compiled.lanes import line, rest
from pipeline.compiled.vector import run_rows

MADE_WITH = {"lanes": "ba6b54c56e1e", "vector": "0258e84ea1a6"}


@njit(cache=True, nogil=True, error_model="numpy")
def run_strips(
    raw, extents, factor, offset, strip, window, tables, rows, columns, codes, parameters, before, pooling, shape, out
):
    """Make maps of raw pixels, as `run_rows` does of their map values ``pixel · factor + offset``.

    Parameters
    ----------
    raw, extents
        The padded block (c, y, x), integers, as `pipeline.compiled.lanes.flat` gives it; and its extents c and x.
    strip
        Output rows that are made at a time, and the rows of map values that they need at the most.
    window
        Of the convolution along y: the rows that it spans, and its stride.
    tables
        What `run_rows` takes after its source, for maps of a strip's rows: pitch, offsets, weights and groups.
    """
    pixels, apart, after = raw
    inputs, wide = extents
    maps, height, width = shape
    made, beside, below = out
    lift, high = strip
    span, down = window
    _, tall_window, tall_stride, _, _ = pooling
    pitch, offsets, weights, groups = tables
    values = np.empty((inputs, high, wide), np.float32)
    for first in range(0, height, lift):
        count = min(lift, height - first)
        top = first * tall_stride  # of the convolution's rows
        between = min(rows - top, (count - 1) * tall_stride + tall_window)
        needed = (between - 1) * down + span
        if len(groups) == 0 and needed < high:  # without a convolution, maps lie close together
            values = np.empty((inputs, needed, wide), np.float32)
        for c in range(inputs):
            for y in range(needed):
                source, target = rest(pixels, c * apart + (top * down + y) * after), line(values, c, y)
                for x in range(len(target)):
                    target[x] = np.float64(source[x]) * factor + offset
        run_rows(
            values.reshape(-1),
            pitch,
            offsets,
            weights,
            groups,
            between,
            columns,
            codes,
            parameters,
            before,
            pooling,
            (maps, count, width),
            (rest(made, first * below), beside, below),
        )
