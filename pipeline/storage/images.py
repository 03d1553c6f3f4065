"""From the paths and globs a user writes to sources, with everything checked before any work."""

import glob
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.errors import HaloflowError, InputError
from pipeline.pixels import is_interleaved, scaling, stored_dtype
from pipeline.storage.allowed import check_codecs
from pipeline.storage.geo import read_geo
from pipeline.storage.globs import is_pattern, matches
from pipeline.storage.identity import digest
from pipeline.storage.ome import Level, is_image, is_plate, read_level
from pipeline.storage.place import METADATA, Place, Where
from pipeline.storage.source import Outer, Source
from pipeline.storage.unfinished import ARRAY, refuse_unfinished

RESERVED = "_haloflow"
"""The one name in an output store that is the run's own."""

Documents = tuple[tuple[str, bytes], ...]
"""The metadata of one group or array: the name of each file, and what stands in it."""

FORMATS = (("zarr.json",), (".zarray", ".zgroup", ".zattrs"))
"""The files of the metadata in Zarr's formats 3 and 2; the first that is there counts."""

MAX_EXTENT = 2**40
MAX_CHANNELS = 2**16
MAX_CHUNKS = 2**32
"""Of 1024 × 1024 pixels they are four million gigapixels, and can still be counted."""


def find(patterns: Sequence[str], options: Mapping[str, Any] | None = None, output: Place | None = None) -> list[Place]:
    """Return the places that the user's paths and globs name; raises `InputError` where one names nothing.

    No glob names the ``output``, which may stand beside the images.
    """
    paths: list[str] = []
    aside = output.real if output else ""
    for pattern in patterns:
        if not pattern.strip():
            raise InputError(f"an image's path is {pattern!r}: name an image")
        place = Place.of(pattern, options)
        if is_pattern(place):
            found = [str(match) for match in matches(place) if match.real != aside]
            if not found:
                raise InputError(f"{pattern}: there is no such image")
            paths += found
            continue
        if not place.is_local or place.exists():
            paths.append(str(place))
            continue
        found = sorted(glob.iglob(place.root, recursive=True)) if glob.has_magic(pattern) else []
        found = [path for path in found if Place.of(path).real != aside]
        if not found:
            raise InputError(f"{pattern}: there is no such image (relative to {Path.cwd()})")
        paths += found
    for path in paths:
        printable = path.encode(errors="backslashreplace").decode()
        if path != printable:
            raise InputError(f"{printable}: the path is not UTF-8; rename it")
    return [Place.of(path, options) for path in dict.fromkeys(path.rstrip("/") or path for path in paths)]


def find_apart(
    patterns: Sequence[str], options: Mapping[str, Any] | None = None, output: Place | None = None
) -> list[Place]:
    """Return what `find` does; raises `InputError` where two of the places would have one name in the output."""
    taken = {RESERVED: "the run's own records", **dict.fromkeys(METADATA, "Zarr's own metadata")}
    places = find(patterns, options, output)
    for place in places:
        name = stem(str(place))
        if name in taken:
            raise InputError(
                f"{place} and {taken[name]} would both be named '{name}' in the output; rename one, or run them apart"
            )
        taken[name] = str(place)
    return places


def stem(path: str) -> str:
    """Return the name of an image: the last part of its path without ``.zarr``, ``.ome.zarr`` and ``.zip``.

    Of an image within a Zarr group, such as a plate or a store of maps, it is the way from that group on, as its last
    part is 0 or a layer's name in all of them. A link has a name of its own.

    >>> stem("scans/slide-7.ome.zarr"), stem("scans/plate.zarr/A/1/0")
    ('slide-7', 'plate_A_1_0')
    """
    parts = os.path.normpath(path).split("/")
    if parts[-1] in ("", ".", ".."):
        parts = os.path.realpath(path).split("/")
    outer = max((n for n, part in enumerate(parts) if part.endswith((".zarr", ".zip"))), default=len(parts) - 1)
    names = (part.removesuffix(".zip").removesuffix(".zarr").removesuffix(".ome") or part for part in parts[outer:])
    return "_".join(names)


def open_image(where: Where, level: int = 0, key: str = "level") -> Source:
    """Return the source for one place: a plain array, or a level of an OME-Zarr image; ``key`` is what chose it."""
    place = Place.of(where)
    source, nodes = opened(place, level, key)
    return replace(source, digest=digest_of(place, source.array) if place.is_local else _digest(nodes))


def digest_of(place: Place, array: Place) -> str:
    """Return a name for an image's metadata as they are now: those of its array, and of the image around it.

    Of local ones their bytes count. Elsewhere they are what zarr makes of them: it has asked for them once already.
    Raises `InputError` where there are none.
    """
    around = dict.fromkeys((place, array))
    if not place.is_local:
        return _digest([_open(at)[0] for at in around])
    found = [documents(at) for at in around]
    if not all(found):
        raise InputError(f"{place}: there is no such image")
    return digest_from(found)


def _digest(nodes: Sequence[Any]) -> str:
    return digest([node.metadata.to_dict() for node in nodes])


def digest_from(found: Sequence[Documents]) -> str:
    """Return what `digest_of` does of a local image, from what has been read."""
    return digest([[name, text.hex()] for node in found for name, text in node])


def documents(place: Place) -> Documents:
    """Return the metadata of a group or array as they are stored, by the names of their files; none where none are."""
    for names in FORMATS:
        found = tuple((name, data) for name in names if (data := place.read(name)) is not None)
        if found:
            return found
    return ()


def opened(place: Place, level: int, key: str) -> tuple[Source, Sequence[Any]]:
    """Return what `open_image` does but for its digest, and the nodes that describe it, that of its array last."""
    path = str(place)
    if place.is_local and not place.exists():
        raise InputError(f"{path}: there is no such image")
    if place.is_local and not place.path.is_dir():
        raise InputError(f"{path}: is not a Zarr image; turn it into one with 'haloflow ingest {path} NAME.zarr'")
    node, attributes = _open(place)
    if isinstance(node, zarr.Group):
        source, array = _from_group(place, attributes, level, key)
        return source, (node, array)
    refuse_unfinished(path.removesuffix(f"/{ARRAY}"), attributes)
    if level:
        raise InputError(f"{path}: {key} is {level}, but this is a plain array: it has no levels")
    axes = _dimension_names(node, attributes) or ("c", "y", "x")[-node.ndim :]
    return _source(path, place, node, axes), (node,)


def _open(place: Place) -> tuple[Any, dict[str, Any]]:
    """Return the array or group at a place, and its attributes."""
    try:
        node = zarr.open(place.store(), mode="r")
        return node, dict(node.attrs)
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged or hostile store makes zarr raise
        if isinstance(error, FileNotFoundError) and not place.is_local:
            raise InputError(f"{place}: there is no such image") from None
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{place}: is not a Zarr image, but another folder; name an image") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{place}: is not a Zarr image, or its metadata is damaged: {reason}") from None


def _from_group(place: Place, attributes: dict[str, Any], level: int, key: str) -> tuple[Source, Any]:
    path = str(place)
    refuse_unfinished(path, attributes)
    if is_plate(attributes):
        raise InputError(f"{path}: is a plate of many images; name them, as with {path}/*/*/[0-9]*")
    if not is_image(attributes):
        inside = (
            sorted(c.name for c in place.path.iterdir() if c.is_dir() and c.name != RESERVED) if place.is_local else []
        )
        hint = f"; it holds {', '.join(inside[:5])}: name one of them" if inside else ""
        raise InputError(f"{path}: is a Zarr group without OME-Zarr metadata, not an image{hint}")
    found = read_level(path, attributes, level, key)
    inner = place / found.path
    refuse_escape(place, inner)
    array, _ = _open(inner)
    if not isinstance(array, zarr.Array):
        raise InputError(f"{inner}: the metadata of {path} names it as an array, and it is a group")
    if array.ndim != len(found.axes):
        raise InputError(f"{inner}: has {array.ndim} axes, the metadata of {path} names {len(found.axes)}")
    return replace(_source(path, inner, array, found.axes, found), geo=read_geo(attributes)), array


def refuse_escape(place: Place, inner: Place) -> None:
    """Raise `InputError` where the array of a local image lies elsewhere, by a link."""
    if place.is_local and not inner.path.resolve().is_relative_to(place.path.resolve()):
        raise InputError(f"{inner}: leads out of the image {place}; name the place it leads to instead")


def _dimension_names(array: Any, attributes: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names of an array's axes; None where it has none, or only those that xarray makes up: ``dim_0``, …"""
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list | tuple) or len(names) != array.ndim or not any(isinstance(n, str) for n in names):
        return None
    return None if all(re.fullmatch(r"dim_\d+", str(name)) for name in names) else tuple(map(str, names))


def _source(
    path: str,
    inner: Place,
    array: Any,
    axes: tuple[str, ...],
    level: Level | None = None,
) -> Source:
    shape = dict(zip(axes, array.shape, strict=False))
    if len(axes) != array.ndim:
        raise InputError(f"{path}: has {array.ndim} axes and no names of them; expected (y, x) or (c, y, x)")
    if not {"y", "x"} <= shape.keys() or not set(axes) <= set("tczyx") or len(shape) != array.ndim:
        raise InputError(
            f"{path}: has the axes {', '.join(axes)}; expected y and x, and of t, c and z those there are: rename them"
        )
    for axis, extent in shape.items():
        if not 1 <= extent <= (MAX_CHANNELS if axis == "c" else MAX_EXTENT):
            raise InputError(f"{path}: its axis {axis} has {extent} pixels; that is no image")
    if axes == ("c", "y", "x") and is_interleaved(array.shape):
        raise InputError(
            f"{path}: is {' × '.join(map(str, array.shape))}, which looks like (y, x, c); store it as (c, y, x), or "
            "name its axes in dimension_names"
        )
    if min(array.chunks) < 1:
        raise InputError(f"{path}: has chunks of {' × '.join(map(str, array.chunks))}; its metadata is damaged")
    if (chunks := math.prod(-(-n // size) for n, size in zip(array.shape, array.chunks, strict=True))) > MAX_CHUNKS:
        raise InputError(f"{path}: has {chunks} chunks, and no image has more than {MAX_CHUNKS}; is it damaged?")
    check_codecs(path, array)
    count = shape.get("c", 1)
    labels = level.channels if level else None
    placed = {
        axis: (level.scale[n], level.translation[n], level.units[n]) if level else (1.0, 0.0, None)
        for n, axis in enumerate(axes)
    }
    (height, top, high), (width, left, wide) = placed["y"], placed["x"]
    dtype = _dtype(path, array)
    return Source(
        name=stem(path),
        path=path,
        array=inner,
        axes=axes,
        shape=array.shape,
        grain=array.chunks,
        unit=array.shards or array.chunks,
        channels=labels if labels and len(labels) == count else tuple(map(str, range(count))),
        picks=tuple(range(count)),
        extents=(shape["y"], shape["x"]),
        dtype=dtype,
        outer=tuple(Outer(axis, shape[axis], 0, *placed[axis]) for axis in "tz" if axis in shape),
        scale=(height, width),
        translation=(top, left),
        units=(high, wide),
        fill=None if array.fill_value is None else np.asarray(array.fill_value, dtype).item(),
        scaled=scaling(dict(array.attrs)),
    )


def _dtype(path: str, array: Any) -> str:
    try:
        return stored_dtype(array.dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
