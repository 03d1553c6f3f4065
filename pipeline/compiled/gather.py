"""Map values of raw integers, row by row of a padded block whose pixels lie in several arrays."""

from numba import njit

from pipeline.compiled.lanes import line, pixels_at, rest
from pipeline.compiled.loops import stretched

MADE_WITH = {"lanes": "e7e3560ff697", "loops": "191c5993d88c"}


@njit(cache=True, nogil=True)
def gather(source, first, values):
    """Write the map values of rows of a block to ``values`` (c, y, x): `stretched` pixels, and the fill.

    Parameters
    ----------
    source
        The block, as `pipeline.padded.Scattered.source` describes it.
    first
        The block's row that is the first of the values.
    """
    kind, pieces, rows, blanks, fill, sign, shift, high, low, beyond = source
    for y in range(values.shape[1]):
        row = rows[first + y]
        for c in range(values.shape[0]):
            target = line(values, c, y)
            if row < 0:
                for x in range(len(target)):
                    target[x] = fill
                continue
            for n in range(len(pieces)):
                start, stop, column, count, address, beside, below = pieces[n]
                if start <= row < stop:
                    pixels = pixels_at(kind, address + c * beside + (row - start) * below, count)
                    part = rest(target, column)
                    for x in range(len(pixels)):
                        part[x] = stretched(pixels[x], sign, shift, high, low, beyond)
            for n in range(len(blanks)):
                target[blanks[n]] = fill
