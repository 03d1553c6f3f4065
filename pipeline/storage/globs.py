"""Patterns in a bucket: one listing for each part that has a sign of a pattern, and never of what lies deeper."""

import glob
from fnmatch import fnmatchcase

from pipeline.errors import InputError
from pipeline.storage.place import Place


def is_pattern(place: Place) -> bool:
    """Say whether the key of a place is a pattern: ``*`` and ``[…]`` stand for names.

    >>> is_pattern(Place.of("s3://bucket/scan-*.zarr")), is_pattern(Place.of("s3://bucket/scan-1.zarr"))
    (True, False)
    """
    return "://" in place.root and glob.has_magic(place.root)


def matches(pattern: Place) -> list[Place]:
    """Return the places that a pattern names, in order; raises `InputError` where it cannot be looked up."""
    if not pattern.is_listed:
        raise InputError(f"{pattern}: is a pattern, and {pattern.scheme} places cannot be listed; name each image")
    places = [pattern.top]
    for part in pattern.root.split("/")[3:]:
        if part == "**":
            raise InputError(f"{pattern}: has '**', which would list a whole bucket; write a '*' for each level")
        if glob.has_magic(part):
            places = [place / name for place in places for name in sorted(place.names()) if fnmatchcase(name, part)]
        else:
            places = [place / part for place in places]
    return places
