"""Convolution with features of 3 × 3 by Winograd's minimal filtering: loops over a block's cells (see `cells`)."""

import numpy as np
from numba import njit

from pipeline.compiled.cells import PLACES, ROWS, RUN, SEEN, finish_all, finish_greatest, multiply, spread
from pipeline.compiled.lanes import LANES, fma, line
from pipeline.compiled.pooling import maximum

MADE_WITH = {"cells": "944a53267208", "lanes": "e7e3560ff697", "pooling": "9e11db3e0d39"}

PART = 256
"""Channels at a time: a feature's weights, or a run of cells, of so many stay in the nearest cache."""


@njit(cache=True, nogil=True, error_model="numpy")
def _spread_all(block, first, count, across, windows, pitch, plane, edge):
    """Fill in the windows of ``count`` cells from the ``first`` on."""
    depth, height, width = block.shape
    for c in range(depth):
        done = 0
        while done < count:
            y = (first + done) // across
            x = first + done - y * across
            length = min(across - x, count - done)
            # A vector may go on beyond its row: what it makes there is overwritten by the next cells. The pixels that
            # it sees there are those of the next row, unless they count for a cell's last column or are not ours.
            after = max(height - 2 * y - 4, 0) * width if width % 2 == 0 else 0
            for n in range(0, length, LANES):
                left = 2 * (x + n)
                to = c * pitch + done + n
                if left + SEEN <= width + after:
                    spread(block, c, 2 * y, left, height - 1, windows, to, plane)
                else:
                    for i in range(4):
                        row = line(block, c, min(2 * y + i, height - 1))
                        for j in range(SEEN):
                            edge[0, i, j] = row[left + j] if left + j < width else 0
                    spread(edge, 0, 0, 0, 3, windows, to, plane)
            done += length


@njit(cache=True, nogil=True, error_model="numpy")
def _multiply_all(windows, pitch, plane, weights, depth, features, count, sums, beside):
    """Make the sums of ``count`` cells for all features, place by place of the window."""
    for place in range(PLACES):
        for c in range(0, depth, PART):
            channels = min(PART, depth - c)
            for k in range(0, features, ROWS):
                for run in range(0, count, RUN):
                    multiply(
                        weights,
                        place * depth * features + c * features + k * channels,
                        windows,
                        place * plane + c * pitch + run,
                        pitch,
                        channels,
                        sums,
                        place * beside + run * features + k * RUN,
                        c > 0,
                    )


@njit(cache=True, nogil=True, error_model="numpy")
def _finish_vector(sums, start, plane, odd, numbers, bias, greatest, shape, out, first, count, across, corner):
    """Make the outputs of ``count`` cells, at most a vector of them, from the ``first`` on, for all maps."""
    maps, height, width = shape
    made, beside, below = out
    divisor, floor = numbers
    step = 1 if greatest else 2
    y = first // across
    x = first - y * across
    in_row = count == LANES and x + LANES <= across
    whole = in_row and step * (y + 1) <= height and step * (x + LANES) <= width
    odd[:] = 0
    for k in range(maps):
        each = divisor, bias[k], floor
        to = k * beside + step * y * below + step * x if whole else k * 4 * LANES
        target, after = (made, below) if whole else (corner, 2 * LANES)
        if greatest:
            finish_greatest(sums, start + k * RUN, plane, odd, 0, each, target, to, after)
        else:
            finish_all(sums, start + k * RUN, plane, odd, 0, each, target, to, after)
    done = count if whole else 0
    while done < count:  # row by row
        y = (first + done) // across
        x = first + done - y * across
        length = min(across - x, count - done)
        columns = min(step * length, width - step * x)
        for k in range(maps):
            for row in range(min(step, height - step * y)):
                to = k * beside + (step * y + row) * below + step * x
                source = (2 * k + row) * 2 * LANES + step * done
                made[to : to + columns] = corner[source : source + columns]
        done += length


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_directly(block, y, x, direct, numbers, bias, greatest, out, total):
    """Make the outputs of the cell (y, x) as a direct convolution does: a tap at a time, channel by channel.

    ``total`` is (output, feature): four sums side by side, as each waits for its own last step. Where the end cuts the
    cell, the second row or column is the first once more.
    """
    depth, height, width = block.shape
    made, beside, below = out
    divisor, floor = numbers
    top, left = 2 * y, 2 * x
    low, right = min(top + 1, height - 3), min(left + 1, width - 3)
    hollow = False
    for c in range(depth):
        for place in range(4):  # all outputs see these
            hollow |= np.isnan(block[c, top + 1 + place // 2, left + 1 + place % 2])
        if hollow:
            break
    total[:] = np.nan if hollow else 0
    if not hollow:
        for c in range(depth):
            for tap in range(9):
                i, j = tap // 3, tap % 3
                first, second = block[c, top + i, left + j], block[c, top + i, right + j]
                third, fourth = block[c, low + i, left + j], block[c, low + i, right + j]
                for k in range(total.shape[1]):
                    weight = direct[c * 9 + tap, k]
                    total[0, k] = fma(weight, first, total[0, k])
                    total[1, k] = fma(weight, second, total[1, k])
                    total[2, k] = fma(weight, third, total[2, k])
                    total[3, k] = fma(weight, fourth, total[3, k])
    for n in range(4):
        to = y * below + x if greatest else (low if n // 2 else top) * below + (right if n % 2 else left)
        for k in range(total.shape[1]):
            pixel = maximum(total[n, k] / divisor + bias[k], floor)
            made[to + k * beside] = maximum(made[to + k * beside], pixel) if greatest and n else pixel


@njit(cache=True, nogil=True, error_model="numpy")
def _aligned(size):
    """Return so many numbers from the start of a cache line on: vectors that lie across two take longer."""
    room = np.empty(size + 16, np.float32)
    start = -(room.ctypes.data // 4) % 16
    return room[start : start + size]


@njit(cache=True, nogil=True, error_model="numpy")
def run_cells(block, weights, direct, numbers, bias, greatest, strip, shape, out):
    """Make maps cell by cell: max(sums / divisor + bias, floor), or the greatest of these in each cell.

    Where a cell has NaN or infinity its sums are made anew as a direct convolution makes them: the differences of
    infinities say nothing.

    Parameters
    ----------
    block
        Padded, (channel, y, x) float32, C-contiguous.
    weights
        G g Gᵀ, flat: for each place of the window, each `PART` of the channels and each `ROWS` of the features those of
        a channel side by side.
    direct
        The features' own weights, (channel · 9 + tap, feature).
    numbers
        The divisor, a positive number, and the floor.
    bias
        A number a feature, for as many features as ``weights`` has: whole `ROWS`.
    greatest
        Whether the greatest of each cell is made.
    strip
        Cells at a time: whole runs of `RUN`.
    shape
        Of what is made: maps, rows, columns.
    out
        Where: flat float32, the pixels from one map to the next, and from one row to the next.
    """
    depth = len(block)
    features = len(bias)
    step = 1 if greatest else 2  # of what is not a whole cell there is no greatest
    across = -(-shape[2] // step)
    cells = -(-shape[1] // step) * across
    # Odd numbers of vectors, so that neighbours do not fall on the same lines of a cache.
    pitch = (strip // LANES + 1 | 1) * LANES
    plane = depth * pitch + LANES
    beside = strip * features + LANES
    windows = _aligned(PLACES * plane)
    sums = _aligned(PLACES * beside)
    edge = np.empty((1, 4, SEEN), np.float32)  # the pixels under a vector of cells that the block has not all of
    corner = np.empty(shape[0] * 4 * LANES, np.float32)  # what a vector of cells that is not all in one row makes
    odd = np.empty(LANES, np.float32)
    total = np.empty((4, shape[0]), np.float32)
    for first in range(0, cells, strip):
        count = min(strip, cells - first)
        _spread_all(block, first, count, across, windows, pitch, plane, edge)
        filled = -(-count // RUN) * RUN
        if filled != count:  # what lies there may be slow to count with
            for place in range(PLACES):
                for c in range(depth):
                    start = place * plane + c * pitch
                    windows[start + count : start + filled] = 0
        _multiply_all(windows, pitch, plane, weights, depth, features, count, sums, beside)
        for n in range(0, count, LANES):
            start = n // RUN * RUN * features + n % RUN
            vector = min(LANES, count - n)
            _finish_vector(
                sums, start, beside, odd, numbers, bias, greatest, shape, out, first + n, vector, across, corner
            )
            for cell in range(vector):
                if np.isnan(odd[cell]):
                    y = (first + n + cell) // across
                    x = first + n + cell - y * across
                    _sum_directly(block, y, x, direct, numbers, bias, greatest, out, total)
