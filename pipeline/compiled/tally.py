"""What a map's pixels sum up to, exactly: whole numbers for each exponent of float32, so that no order matters."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def tally(values, bits, rows, columns, over, edges, sums, counts, bins):
    """Count pixels of (y, x) float32 ``values`` and return (y, x) of the first of the greatest, (−1, −1) for none.

    They are those from ``rows[0]`` to before ``rows[1]``, and so for columns. ``bits`` are the same pixels as int32.
    For each exponent e of float32 from 0 to 254, where a pixel is m · 2^(max(e, 1) − 150), ``sums[:, e]`` grow by m,
    and by the low 24 bits and the others of m². ``counts`` grow by the pixels that are NaN, inf, −inf, and at least
    ``over``; ``bins`` by those between ``edges``, as `numpy.histogram` counts them. NaN is counted as NaN alone.
    """
    top, left, largest = -1, -1, np.float32(-np.inf)
    last = len(edges) - 1
    for y in range(rows[0], rows[1]):
        for x in range(columns[0], columns[1]):
            value = values[y, x]
            if value != value:
                counts[0] += 1
                continue
            if top < 0 or value > largest:
                top, left, largest = y, x, value
            counts[3] += np.float64(value) >= over
            if last > 0 and edges[0] <= value <= edges[last]:
                # Near the bin by arithmetic, in it by its edges.
                nth = min(last - 1, int((value - edges[0]) / (edges[last] - edges[0]) * last))
                while nth > 0 and value < edges[nth]:
                    nth -= 1
                while nth < last - 1 and value >= edges[nth + 1]:
                    nth += 1
                bins[nth] += 1
            exponent, mantissa = (bits[y, x] >> 23) & 255, np.int64(bits[y, x] & 0x7FFFFF)
            if exponent == 255:
                counts[1 if value > 0 else 2] += 1
                continue
            if exponent:
                mantissa |= 0x800000
            sums[0, exponent] += -mantissa if bits[y, x] < 0 else mantissa
            sums[1, exponent] += (mantissa * mantissa) & 0xFFFFFF
            sums[2, exponent] += (mantissa * mantissa) >> 24
    return top, left
