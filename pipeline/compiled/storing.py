"""What becomes of a strip of maps: the numbers that are stored, and what is seen of it on the way."""

from numba import njit

from pipeline.compiled.lanes import maps_of, rest
from pipeline.compiled.loops import survey
from pipeline.compiled.narrowing import halve, quantise

MADE_WITH = {"lanes": "e7e3560ff697", "loops": "191c5993d88c", "narrowing": "0154b146d294"}


@njit(cache=True, nogil=True)
def store(maps, first, numbers, scale):
    """Store a strip of maps from a row on; return the range of the maps."""
    if numbers is None:
        return survey(maps)
    row, beside, below = numbers
    here = maps_of(rest(row, first * below), beside, below, maps.shape)
    if scale is None:
        return halve(maps, here)
    offset, step, least, last, missing = scale
    return quantise(maps, offset, step, least, last, missing, here)


@njit(cache=True, nogil=True)
def look_at(maps, first, looks):
    """Take the pixels that are looked at of a strip of maps from a row on."""
    rows, columns, pixels = looks
    for n in range(len(rows)):
        if first <= rows[n] < first + maps.shape[1]:
            for c in range(maps.shape[0]):
                for x in range(len(columns)):
                    pixels[c, n, x] = maps[c, rows[n] - first, columns[x]]
