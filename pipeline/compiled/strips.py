"""Convolution, point layers and pooling of raw integers, a strip of rows at a time: from pixels to stored numbers.

The map values of a strip, and what becomes of them, are made in buffers that stay close to the processor; those of a
whole block would go to memory and come back.
"""

import numpy as np
from numba import njit

from pipeline.compiled.gather import gather
from pipeline.compiled.lanes import maps_of, rest
from pipeline.compiled.storing import look_at, store
from pipeline.compiled.vector import run_rows

MADE_WITH = {"gather": "0d0f9d5e369a", "lanes": "e7e3560ff697", "storing": "db96307aae08", "vector": "5b8020546636"}


@njit(cache=True, nogil=True, error_model="numpy")
def run_strips(
    source,
    extents,
    strip,
    window,
    tables,
    columns,
    codes,
    parameters,
    before,
    pooling,
    shape,
    out,
    numbers=None,
    scale=None,
    looks=None,
):
    """Make maps of raw pixels, as `run_rows` does of their map values; return the range of what is stored of them.

    Parameters
    ----------
    source, extents
        The padded block, as `gather` takes it, and its extents c and x.
    strip
        Output rows that are made at a time, and the rows of map values that they need at the most.
    window
        Of the convolution along y: the rows that it spans, and its stride.
    tables
        What `run_rows` takes after its source, for maps of a strip's rows: pitch, offsets, weights and groups.
    out
        Where the maps go, as `run_rows` takes it; with ``numbers`` this has room for a strip of them.
    numbers
        Where the numbers go that are stored of the maps, like ``out``; None where that is the maps themselves.
    scale
        What `quantise` makes integers with; None for float16.
    looks
        Rows, columns and an array (c, row, column) of the pixels that are looked at; None where nothing is stored and
        the maps are left as they are.
    """
    inputs, wide = extents
    maps, height, width = shape
    made, beside, below = out
    lift, high = strip
    span, down = window
    _, tall_window, tall_stride, _, _ = pooling
    pitch, offsets, weights, groups = tables
    held = np.empty(inputs * high * wide, np.float32)
    low, greatest = np.float32(np.inf), np.float32(-np.inf)
    for first in range(0, height, lift):
        count = min(lift, height - first)
        between = (count - 1) * tall_stride + tall_window  # rows of the convolution
        needed = (between - 1) * down + span
        tall = high if len(groups) else needed  # without a convolution, maps lie close together
        values = held[: inputs * tall * wide].reshape(inputs, tall, wide)
        gather(source, first * tall_stride * down, values[:, :needed])
        here = made if numbers is not None else rest(made, first * below)
        run_rows(
            held,
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
            (here, beside, below),
        )
        if looks is not None:
            part = maps_of(here, beside, below, (maps, count, width))
            least, most = store(part, first, numbers, scale)
            low, greatest = min(low, least), max(greatest, most)
            look_at(part, first, looks)
    return low, greatest
