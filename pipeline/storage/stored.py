"""Which chunks of an array are stored; the others are all fill value, and cost neither reading nor computing."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from pipeline.geometry import Interval, Region, intersect, is_empty
from pipeline.storage.source import Source

MOST_AFAR = 50_000
"""Objects that are listed in a bucket at the most, a thousand a request: a few seconds."""

MOST = 200_000
"""Objects that are listed at the most: an array with more of them has hardly a part worth skipping."""

Stored = Mapping[int, frozenset[tuple[int, int]]]
"""For each plane that has any the places (y, x) of its stored chunks or shards, in units of `unit`."""


def stored_chunks(source: Source) -> Stored | None:
    """Return which chunks or shards of an image are stored; None where nearly all are, or where there is but one.

    One listing of the array's keys; a key of any form ends with the chunk's place along each axis.
    """
    ends = zip(_region(source), unit(source), strict=True)
    full = source.planes * prod(-(-i.stop // u) - i.start // u for i, u in ends)
    if full == 1 or not source.array.is_listed or (not source.array.is_local and full > MOST_AFAR):
        return None
    places = _places(source)
    if places is None:
        return None
    found: dict[int, set[tuple[int, int]]] = {}
    for place in places:
        box = {axis: Interval(p * n, (p + 1) * n) for axis, p, n in zip(source.axes, place, source.unit, strict=True)}
        at = place[source.axes.index("y")], place[source.axes.index("x")]
        for plane in _planes(source, box):
            found.setdefault(plane, set()).add(at)
    if sum(map(len, found.values())) >= full:
        return None
    return {plane: frozenset(at) for plane, at in found.items()}


def _region(source: Source) -> Region:
    return source.placed(tuple(Interval(0, extent) for extent in source.extents))


def _planes(source: Source, box: Mapping[str, Interval]) -> Sequence[int]:
    """Return the planes that have pixels of the image in a box of the array."""
    whole = Interval(0, 1)
    if is_empty(intersect((box["y"], box["x"]), _region(source))):
        return ()
    if not any(box.get("c", whole).start <= pick < box.get("c", whole).stop for pick in source.picks):
        return ()
    numbers = [0]
    for axis in source.outer:
        inside = box[axis.name].intersect(Interval(axis.first, axis.first + axis.extent))
        along = range(inside.start - axis.first, inside.stop - axis.first)
        numbers = [n * axis.extent + at for n, at in product(numbers, along)]
    return numbers


def unit(source: Source) -> tuple[int, int]:
    """Return the pixels (y, x) of what is stored as one object: a shard where there are shards, else a chunk."""
    return source.along("y", source.unit), source.along("x", source.unit)


def _places(source: Source) -> list[tuple[int, ...]] | None:
    """Return the places of all stored objects, or None where there are too many."""
    found: list[tuple[int, ...]] = []
    for key in source.array.list():
        parts = key.replace(".", "/").split("/")[-len(source.axes) :]
        if len(parts) == len(source.axes) and all(part.isdecimal() for part in parts):
            found.append(tuple(map(int, parts)))
            if len(found) > MOST:
                return None
    return found
