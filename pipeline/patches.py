"""How much the pixels under a window vary, for every place of it: exact where a difference of sums is not.

The usual Σx² − (Σx)²/n loses everything where an image has a large offset, and sums that run along a row depend on
where they started. Here a window is put together from halves: the mean and the sum of squared deviations of two parts
give those of both (T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979). Every term is a square, so nothing cancels; a pixel's steps follow from the window alone, so
its bits do not depend on the block; and a window of k pixels takes about 2·log₂ k steps.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled.spread import spread_under
from pipeline.geometry import Window

FLAT = 2.0**-21
"""Patches that vary less than this part of their root mean square are flat: it is a few roundings of float32."""

NOTHING = 2.0**-100
"""Patches that vary less than this are flat, too: float32 has few digits left there."""

Wide = NDArray[np.float64]


def deviation(block: NDArray[np.floating], depth: int, windows: tuple[Window, Window]) -> Wide:
    """Return the standard deviation of the pixels under the windows of each place, 0 where they are flat.

    Parameters
    ----------
    block
        Maps (c, y, x), already padded.
    depth
        Maps that are under one window together: c is a multiple of it.
    windows
        For y and for x.

    Returns
    -------
    (c / depth, y', x') float64; NaN where a pixel under the window is NaN or infinite.
    """
    means, found = moments(block, depth, windows)
    found[found <= flat_below(means)] = 0
    return found


def flat_below(means: Wide) -> Wide:
    """Return for the means of patches the greatest deviation that counts as none.

    The root mean square is between the magnitude of the mean and that and the deviation together.
    """
    return np.maximum(FLAT * np.abs(means), NOTHING)


def moments(block: NDArray[np.floating], depth: int, windows: tuple[Window, Window]) -> tuple[Wide, Wide]:
    """Return means and standard deviations of the pixels under windows, as `deviation` takes them."""
    y, x = windows
    rows, columns = ((n - w.span) // w.stride + 1 for n, w in zip(block.shape[1:], windows, strict=True))
    means, spreads = np.empty((2, len(block), rows, columns))
    tables = ((w.size, w.stride, w.dilation) for w in (y, x))
    spread_under(block.astype(np.float64), *tables, means, spreads)
    count = y.size * x.size
    groups = [part.reshape(-1, depth, rows, columns) for part in (means, spreads)]
    means, spreads = (group[:, 0] for group in groups)
    for channel in range(1, depth):
        mean, spread = (group[:, channel] for group in groups)
        means, spreads = _joined(means, spreads, channel * count, mean, spread, count)
    found: Wide = np.sqrt(spreads / (count * depth))
    found[np.isinf(found)] = np.nan
    return means, found


def _joined(mean: Wide, spread: Wide, count: int, mean2: Wide, spread2: Wide, count2: int) -> tuple[Wide, Wide]:
    """Return the mean and the squared deviations of two parts together."""
    total = count + count2
    apart = mean2 - mean
    together = mean + apart * (count2 / total)
    apart *= apart
    apart *= count * count2 / total
    apart += spread
    apart += spread2
    return together, apart


def score(sums: NDArray[np.floating], deviations: Wide, bias: Wide) -> NDArray[np.floating]:
    """Turn sums of balanced features and patches into normalised cross-correlations, in place.

    Parameters
    ----------
    sums
        (group, feature, y, x), of features with a mean of 0 and a sum of squares of 1 / n, over n pixels.
    deviations
        (group, y, x), from `deviation`.
    bias
        (feature,), added at the end.

    Returns
    -------
    Numbers from −1 to 1, and the bias: 0 where a patch is flat, NaN where a deviation is.
    """
    for maps, spread in zip(sums, deviations, strict=True):
        flat = spread == 0
        for matches, shift in zip(maps, bias, strict=True):
            found = np.clip(matches / np.where(flat, 1, spread), -1, 1)
            found[flat] = 0
            matches[:] = found + shift
    return sums
