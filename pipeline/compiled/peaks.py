"""Peaks of a map: the pixels that are the greatest of a window around them."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _is_peak(values, y, x, distance):
    """Say whether a pixel of (y, x) values is above all in its window that come before it, and below none after it."""
    pixel, (height, width) = values[y, x], values.shape
    # Nearly every pixel has a greater one beside it.
    for i in range(max(0, y - 1), min(height, y + 2)):
        for j in range(max(0, x - 1), min(width, x + 2)):
            other = values[i, j]
            if other > pixel or (other == pixel and (i < y or (i == y and j < x))):
                return False
    for i in range(max(0, y - distance), min(height, y + distance + 1)):
        before = i < y
        for j in range(max(0, x - distance), min(width, x + distance + 1)):
            other = values[i, j]
            if other > pixel or (other == pixel and (before or (i == y and j < x))):
                return False
    return True


@njit(cache=True, nogil=True)
def find(values, rows, columns, threshold, distance, out):
    """Write (y, x) of the peaks of (y, x) float32 ``values`` to the rows of ``out`` in reading order; return how many.

    Only pixels from ``rows[0]`` to before ``rows[1]``, and so for columns, are asked for; those around them count. NaN
    is no peak, and hides none.
    """
    found = 0
    for y in range(rows[0], rows[1]):
        for x in range(columns[0], columns[1]):
            if np.float64(values[y, x]) >= threshold and _is_peak(values, y, x, distance):
                out[found, 0], out[found, 1] = y, x
                found += 1
    return found
