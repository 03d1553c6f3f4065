"""Empty space: what a stack makes of an image's fill value, and which blocks see anything else."""

from collections.abc import Collection, Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Interval
from pipeline.given import Raw
from pipeline.kernels import BACKENDS
from pipeline.pixels import PixelScale
from pipeline.reading import Reading
from pipeline.stack import BoundStack, finished

TRIES = 4
"""How far from the edge a pixel is looked for that no padding reaches: each try goes twice as far."""


def background(stack: BoundStack, scale: PixelScale, fill: float, place: int) -> NDArray[np.float32] | None:
    """Return the value of each map of layer ``place`` (from 0) far from any edge of an image that is all ``fill``.

    It is made by the kernels of the run, so it has the bits that a run would give. None where padding reaches
    everywhere.
    """
    part = stack.part(0, place + 1)
    windows = part.window(place)
    cell = max(max(BACKENDS[c.backend].cell(o)) for o, c in zip(part.operations, part.choices, strict=True))
    for tried in range(TRIES):
        at = [-(-w.pad_lo // w.stride // cell) * cell + cell * (2**tried - 1) for w in windows]
        region = tuple(Interval(o, o + 1) for o in at)
        # Room for the whole cells around the pixel, and for what is padded behind them.
        extents = part.extents([(o + 2 * cell) * w.stride + 2 * w.span for o, w in zip(at, windows, strict=True)])
        walk = part.walk({place: region}, extents)
        if not any(walk.edges):
            raw = np.full((part.operations[0].inputs, *map(len, walk.read)), fill, scale.dtype)
            given = Raw([(walk.read, raw)], scale)
            made = finished(part.run(given, walk, {place: region}, extents)[place])
            found: NDArray[np.float32] = made[:, 0, 0]
            return found
    return None


def seeing(
    reading: Reading, stored: Mapping[int, Collection[tuple[int, int]]], unit: tuple[int, int]
) -> tuple[int, ...]:
    """Return the numbers of the blocks that read any stored chunk, or meet an edge of a map, in the order of the walk.

    Parameters
    ----------
    reading
        What the blocks of a grid read.
    stored
        For each plane that has any the places (y, x) of what is stored, counted in units of ``unit`` pixels of the
        array.
    """
    readers: list[dict[int, list[int]]] = []
    at_edge: list[list[int]] = []
    for axis in (0, 1):
        who: dict[int, list[int]] = {}
        edge = []
        for number in range(reading.grid.counts[axis]):
            index = (number, 0) if axis == 0 else (0, number)
            wanted = dict(zip(reading.places, reading.grid.seen(index), strict=True))
            walk = reading.stack.walk(wanted, reading.extents)
            if walk.edges[axis]:
                edge.append(number)
            read = reading.source.placed(walk.read)[axis]
            for chunk in range(read.start // unit[axis], -(-read.stop // unit[axis])) if len(read) else ():
                who.setdefault(chunk, []).append(number)
        readers.append(who)
        at_edge.append(edge)
    height, width = reading.grid.counts
    edges = {*product(at_edge[0], range(width)), *product(range(height), at_edge[1])}
    if any(m.halo for m in reading.grid.maps):
        edges.add((0, 0))  # where nothing comes before it, the first pixel of a map is the peak of a plain
    numbers: list[int] = []
    for plane in range(reading.source.planes):
        places = stored.get(plane, ())
        indices = {index for y, x in places for index in product(readers[0].get(y, ()), readers[1].get(x, ()))}
        numbers += sorted(plane * len(reading.grid) + reading.grid.number(index) for index in indices | edges)
    return tuple(numbers)
