"""Which chunks of an array are stored; the others are all fill value, and cost neither reading nor computing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Listing:
    """What a listing of an array's keys tells of the chunks, or shards, that an image lies in."""

    stored: Stored | None
    """Which are stored; None where all are, or where there are too many to say which."""
    objects: int
    """How many there would be."""
    missing: int | None
    """How many of them are not stored; None where nobody can be asked, or where there are too many."""


def list_chunks(source: Source, *, every: bool = False) -> Listing:
    """Return which chunks or shards of an image are stored: one listing, however long it is where ``every`` counts.

    A key of any form ends with the chunk's place along each axis.
    """
    ends = zip(_region(source), unit(source), strict=True)
    apart = prod(-(-i.stop // u) - i.start // u for i, u in ends)
    full, objects = source.planes * apart, _thick(source) * apart
    if not source.array.is_listed or not (every or source.array.is_local or full <= MOST_AFAR):
        return Listing(None, objects, None)
    found: dict[int, set[tuple[int, int]]] = {}
    there = number = 0
    for number, place in enumerate(_places(source), 1):
        if number > MOST and not every:
            return Listing(None, objects, None)
        box = {axis: Interval(p * n, (p + 1) * n) for axis, p, n in zip(source.axes, place, source.unit, strict=True)}
        planes = _planes(source, box)
        there += bool(planes)
        for plane in planes if number <= MOST else ():
            found.setdefault(plane, set()).add((place[source.axes.index("y")], place[source.axes.index("x")]))
    some = number <= MOST and sum(map(len, found.values())) < full
    return Listing({plane: frozenset(at) for plane, at in found.items()} if some else None, objects, objects - there)


def _thick(source: Source) -> int:
    """Return how many chunks or shards lie one upon another, along all axes but y and x."""
    deep = source.along("c", source.unit)
    count = len({pick // deep for pick in source.picks})
    for axis in source.outer:
        thick = source.along(axis.name, source.unit)
        count *= -(-(axis.first + axis.extent) // thick) - axis.first // thick
    return count


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


def _places(source: Source) -> Iterator[tuple[int, ...]]:
    """Give the places of all stored objects."""
    for key in source.array.list():
        parts = key.replace(".", "/").split("/")[-len(source.axes) :]
        if len(parts) == len(source.axes) and all(part.isdecimal() for part in parts):
            yield tuple(map(int, parts))
