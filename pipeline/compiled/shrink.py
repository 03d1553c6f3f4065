"""From one level of a pyramid to the next: each pixel from the 1 to 4 pixels that lie in its place."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def mean(maps, steps, missing, whole, out):
    """Write the mean of each block of ``steps`` (y, x) pixels of (c, y, x) ``maps`` to ``out``.

    Summed in float64, row by row; blocks at the end may have fewer pixels. Where pixels are ``whole`` numbers the mean
    is the nearest one, of two the even one. A block with a pixel that is NaN or ``missing`` is ``missing``.
    """
    height, width = maps.shape[1:]
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            top, bottom = y * steps[0], min((y + 1) * steps[0], height)
            fours = width // 2 if steps[1] == 2 and bottom - top == 2 else 0
            for x in range(fours):  # the same as below, in a form that a vector unit takes
                p, q = np.float64(maps[c, top, 2 * x]), np.float64(maps[c, top, 2 * x + 1])
                r, s = np.float64(maps[c, top + 1, 2 * x]), np.float64(maps[c, top + 1, 2 * x + 1])
                made = (0.0 + p + q + r + s) / 4.0
                made = np.rint(made) if whole else made
                hollow = (p == missing) | (q == missing) | (r == missing) | (s == missing) | (made != made)
                out[c, y, x] = missing if hollow else made
            for x in range(fours, out.shape[2]):
                total, count, hollow = 0.0, 0, False
                for i in range(top, bottom):
                    for j in range(x * steps[1], min((x + 1) * steps[1], width)):
                        pixel = np.float64(maps[c, i, j])
                        hollow |= pixel == missing
                        total += pixel
                        count += 1
                made = np.float64(total / count)
                made = np.rint(made) if whole else made
                out[c, y, x] = missing if hollow or made != made else made


@njit(cache=True, nogil=True)
def largest(maps, steps, missing, out):
    """Write the greatest pixel of each block as `mean` does its mean; of 0 and −0 the first."""
    height, width = maps.shape[1:]
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            top, bottom = y * steps[0], min((y + 1) * steps[0], height)
            fours = width // 2 if steps[1] == 2 and bottom - top == 2 else 0
            for x in range(fours):
                p, q = maps[c, top, 2 * x], maps[c, top, 2 * x + 1]
                r, s = maps[c, top + 1, 2 * x], maps[c, top + 1, 2 * x + 1]
                most = max(p, q)
                most = max(most, r)
                most = max(most, s)
                hollow = (p == missing) | (q == missing) | (r == missing) | (s == missing)
                hollow |= (p != p) | (q != q) | (r != r) | (s != s)
                out[c, y, x] = missing if hollow else most
            for x in range(fours, out.shape[2]):
                most, hollow = maps[c, top, x * steps[1]], False
                for i in range(top, bottom):
                    for j in range(x * steps[1], min((x + 1) * steps[1], width)):
                        pixel = maps[c, i, j]
                        hollow |= (pixel != pixel) | (pixel == missing)
                        most = max(most, pixel)
                out[c, y, x] = missing if hollow else most
