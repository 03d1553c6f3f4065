"""Means and squared deviations under a window, put together from halves; `pipeline.patches` says why."""

import numpy as np
from numba import njit

_LANES = 32
"""Columns that go down a map together, so that what they hold stays in the near caches."""


@njit(cache=True, nogil=True, error_model="numpy")
def _join(mean, spread, count, mean2, spread2, count2):
    """Turn the means and squared deviations of one part into those of it and another; the arrays share no memory."""
    share, weight = count2 / (count + count2), count * count2 / (count + count2)
    for i in range(len(mean)):
        apart = mean2[i] - mean[i]
        mean[i] += apart * share
        spread[i] = apart * apart * weight + spread[i] + spread2[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _across(row, size, dilation, work, means, spreads):
    """Put the means and squared deviations under windows along a row into the first of ``means`` and ``spreads``.

    Windows of 1, 2, 4, … taps are made at every pixel; those that the binary digits of the window's size name are
    joined, the smallest first.
    """
    mean, spread, mean_before, spread_before = work
    length, power, done = len(row), 1, 0
    mean[:], spread[:] = row, 0
    while True:
        if size & power:
            if done:
                shift, kept = done * dilation, length - done * dilation
                _join(means[:kept], spreads[:kept], done, mean[shift:length], spread[shift:length], power)
            else:
                means[:length], spreads[:length] = mean[:length], spread[:length]
            done += power
        if 2 * power > size:
            return
        shift, kept = power * dilation, length - power * dilation
        mean_before[:length], spread_before[:length] = mean[:length], spread[:length]
        _join(mean[:kept], spread[:kept], power, mean_before[shift:length], spread_before[shift:length], power)
        length, power = kept, 2 * power


@njit(cache=True, nogil=True, error_model="numpy")
def _down(mean, spread, each, size, dilation, means, spreads):
    """Do the same down the columns of a strip (y, x), whose pixels stand for ``each`` of their own."""
    length, power, done = len(mean), 1, 0
    while True:
        if size & power:
            shift = done * dilation
            for y in range(length - shift):
                if done:
                    _join(means[y], spreads[y], done * each, mean[y + shift], spread[y + shift], power * each)
                else:
                    means[y], spreads[y] = mean[y], spread[y]
            done += power
        if 2 * power > size:
            return
        shift = power * dilation
        length -= shift
        for y in range(length):
            _join(mean[y], spread[y], power * each, mean[y + shift], spread[y + shift], power * each)
        power *= 2


@njit(cache=True, nogil=True, error_model="numpy")
def spread_under(maps, y_window, x_window, means, spreads):
    """Write the means and the sums of squared deviations under the windows of each place of (c, y, x) float64 maps.

    A window is (size, stride, dilation).
    """
    (high, down, apart_y), (wide, right, apart_x) = y_window, x_window
    channels, height, width = maps.shape
    columns = means.shape[2]
    work = (np.empty(width), np.empty(width), np.empty(width), np.empty(width))
    row_mean, row_spread = np.empty(width), np.empty(width)
    across_mean, across_spread = np.empty((height, columns)), np.empty((height, columns))
    strip = np.empty((4, height, _LANES))
    last = means.shape[1] * down
    for c in range(channels):
        for y in range(height):
            _across(maps[c, y], wide, apart_x, work, row_mean, row_spread)
            for x in range(columns):
                across_mean[y, x], across_spread[y, x] = row_mean[x * right], row_spread[x * right]
        for x in range(0, columns, _LANES):
            lanes = min(_LANES, columns - x)
            mean, spread, found_mean, found_spread = strip[0], strip[1], strip[2], strip[3]
            strip[:] = 0
            mean[:, :lanes], spread[:, :lanes] = across_mean[:, x : x + lanes], across_spread[:, x : x + lanes]
            _down(mean, spread, wide, high, apart_y, found_mean, found_spread)
            means[c, :, x : x + lanes] = found_mean[:last:down, :lanes]
            spreads[c, :, x : x + lanes] = found_spread[:last:down, :lanes]
