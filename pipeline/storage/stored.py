"""Which chunks of an array are stored; the others are all fill value, and cost neither reading nor computing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

from pipeline.geometry import Interval, Region
from pipeline.storage.source import Source

MOST_AFAR = 50_000
"""Objects that are listed in a bucket at the most, a thousand a request: a few seconds."""

MOST = 200_000
"""Objects that are listed at the most: an array with more of them has hardly a part worth skipping."""

HERE = (0,)
"""Of a chunk along an axis that has one place in a plane's number: some pixels of the image lie in it."""

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
    axes, y, x = [_inside(source, axis) for axis in source.axes], source.axes.index("y"), source.axes.index("x")
    there = number = 0
    for number, place in enumerate(_places(source), 1):
        if number > MOST and not every:
            return Listing(None, objects, None)
        planes: Sequence[int] = HERE
        for inside, at in zip(axes, place, strict=True):
            if not (steps := inside(at)):
                break
            if steps is not HERE:
                planes = tuple(plane + step for plane in planes for step in steps)
        else:
            there += 1
            for plane in planes if number <= MOST else ():
                found.setdefault(plane, set()).add((place[y], place[x]))
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


def _inside(source: Source, axis: str) -> Callable[[int], Sequence[int]]:
    """Return what tells of a place along an axis, counted in chunks or shards, which pixels of the image lie in it.

    Along an outer axis these are steps from the number of the first plane to those of the planes; along another one
    there is just `HERE`, or nothing.
    """
    size, whole = source.along(axis, source.unit), _region(source)
    outer = {other.name: number for number, other in enumerate(source.outer)}

    @cache
    def inside(at: int) -> Sequence[int]:
        box = Interval(at * size, (at + 1) * size)
        if axis in outer:
            along = source.outer[outer[axis]]
            step = prod(other.extent for other in source.outer[outer[axis] + 1 :])
            seen = box.intersect(Interval(along.first, along.first + along.extent))
            return tuple((place - along.first) * step for place in range(seen.start, seen.stop))
        if axis == "c":
            return HERE if any(box.start <= pick < box.stop for pick in source.picks) else ()
        return HERE if len(box.intersect(whole["yx".index(axis)])) else ()

    return inside


def unit(source: Source) -> tuple[int, int]:
    """Return the pixels (y, x) of what is stored as one object: a shard where there are shards, else a chunk."""
    return source.along("y", source.unit), source.along("x", source.unit)


def _places(source: Source) -> Iterator[tuple[int, ...]]:
    """Give the places of all stored objects."""
    for key in source.array.list():
        parts = key.replace(".", "/").removeprefix("c/").split("/")
        # Nothing else that lies there is a chunk: a copy in a folder, or 00 beside 0.
        if len(parts) == len(source.axes) and all(part.isdecimal() and str(int(part)) == part for part in parts):
            yield tuple(map(int, parts))
