"""The pixels of a pyramid: each level is made of the stored numbers of the level before, decoded, and stored alike.

A pixel is made of the 2 × 2 pixels in its place, or as many as there are at the end of the map; which ones follows from
the map's own grid. So its bits depend neither on chunks nor on who made it, nor on whether it was made along with the
map or at the end.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled.shrink import largest, mean
from pipeline.geometry import Interval
from pipeline.storage.cache import ChunkCache
from pipeline.storage.images import RESERVED
from pipeline.storage.maps import Level, MapArray
from pipeline.storage.place import Place, Where
from pipeline.storage.records import Units
from pipeline.storage.source import place_of

Stored = NDArray[Any]

STAGING = f"{RESERVED}/partial"


def staging(store: Place) -> str | None:
    """Return the folder where a local store's chunks are before they are whole; None where chunks are no files."""
    return f"{store.root}/{STAGING}" if store.is_local else None


def shrunk(m: MapArray, stored: Stored, steps: tuple[int, int]) -> Stored:
    """Return the stored numbers (c, y, x) of a level from those of the level before: ``steps`` (y, x) pixels make one.

    The mean is summed in float64 and rounded once, to float32 or to the nearest integer (of two the even one), and
    from float32 to float16. The greatest, and the mean, of pixels of which one is NaN is NaN.
    """
    shape = (len(stored), *(-(-n // s) for n, s in zip(stored.shape[1:], steps, strict=True)))
    half = m.encoding.dtype == "float16"
    values = stored.astype(np.float32) if half else stored
    made = np.empty(shape, values.dtype)
    missing = float(m.encoding.missing)
    if m.shrink == "max":
        largest(values, steps, missing, made)
    else:
        mean(values, steps, missing, m.encoding.is_scaled, made)
    return m.encoding.encode(made) if half else made


def whole_unit(m: MapArray, level: Level, values: Stored) -> Stored:
    """Return values (c, y, x) as a whole write unit of a level: what lies beyond the map's end is fill value."""
    if values.shape[1:] == level.unit:
        return values
    unit = np.full((len(values), *level.unit), m.fill, values.dtype)
    unit[:, : values.shape[1], : values.shape[2]] = values
    return unit


def make(
    store: Where,
    m: MapArray,
    number: int,
    place: tuple[int, int],
    cache: ChunkCache,
    plane: int = 0,
    check: Callable[[], None] = lambda: None,
) -> tuple[Units, int, int]:
    """Make a write unit of a level of a plane from the level before, which is complete; ``check`` is as in `write`.

    Returns its record, bytes read and bytes written.

    It is read chunk by chunk of this level, so that no more is held than the unit and what makes one chunk of it.
    """
    before, level = m.levels[number - 1 : number + 1]
    group = Place.of(store) / m.group
    source, target = (cache.open(group / str(n), "r+", staging(Place.of(store))) for n in (number - 1, number))
    written, taken, given = [], 0, 0
    region = level.region(place)
    outer = place_of(plane, m.outer)
    planes = [Interval(at, at + 1) for at in outer]
    unit = np.full((1, *level.unit), m.fill, m.encoding.dtype)
    for c in range(len(m.channels)):
        for corner in product(*(range(i.start, i.stop, n) for i, n in zip(region, level.chunks, strict=True))):
            part = tuple(
                Interval(at, min(at + n, i.stop)) for at, n, i in zip(corner, level.chunks, region, strict=True)
            )
            under = level.before(part, before.extents)
            values = source.read(m.full(Interval(c, c + 1), under, planes)).reshape(1, *map(len, under))
            rows, columns = (p.within(i) for p, i in zip(part, region, strict=True))
            unit[:, rows, columns] = made = shrunk(m, values, level.steps)
            taken, given = taken + values.nbytes, given + made.nbytes
        written.append(target.write(m.full(c, place, outer), unit.reshape(m.one(level.unit)), check))
    counts = m.full(len(m.channels), (1, 1), [1] * len(outer))
    return Units.of(f"{m.group}/{number}", m.full(0, place, outer), counts, written), taken, given
