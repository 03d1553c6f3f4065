"""The metadata of a map's arrays and groups, as zarr makes them, made once for all maps of a kind."""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any, Literal

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import ConsolidatedMetadata, GroupMetadata
from zarr.storage import MemoryStore

from pipeline.storage.maps import MapArray
from pipeline.storage.metadata import Window


@dataclass(frozen=True)
class Form:
    """The arrays of maps of a kind: by the name of each level its metadata, and these as files, by their names."""

    metadata: dict[str, Any]
    files: dict[str, dict[str, bytes]]


def zarr_format(m: MapArray) -> Literal[2, 3]:
    """Return the format of Zarr that a map's version of OME-Zarr lies in."""
    return 2 if m.version == "0.4" else 3


def form_of(m: MapArray) -> Form:
    """Return what zarr would make of a map's arrays."""
    return _form(replace(m, image="", fill=0), repr(m.fill))


@lru_cache(maxsize=8)
def empty_group(form: Literal[2, 3]) -> dict[str, bytes]:
    """Return the files of a group of which nothing is said."""
    return files(GroupMetadata({}, form))


@lru_cache(maxsize=256)
def _form(m: MapArray, fill: str) -> Form:
    """Return the form of a kind of maps; their fill value is text, in which −0 is not 0."""
    form = zarr_format(m)
    group = zarr.create_group(MemoryStore(), zarr_format=form)
    metadata: dict[str, Any] = {}
    for number, level in enumerate(m.levels):
        array: Any = group.create_array(
            str(number),
            shape=m.shape(level),
            chunks=m.one(level.chunks),
            shards=m.one(level.shards) if level.shards else None,
            dtype=m.encoding.dtype,
            compressors=m.compression.made(form),
            fill_value=np.dtype(m.encoding.dtype).type(fill),
            chunk_key_encoding={"name": "default" if form == 3 else "v2", "separator": "/"},
            dimension_names=m.axes if form == 3 else None,
            # Format 2 has no names of dimensions; this is where xarray looks for them.
            attributes={**m.encoding.attributes, **({} if form == 3 else {"_ARRAY_DIMENSIONS": m.axes})},
        )
        metadata[str(number)] = array.metadata
    return Form(metadata, {name: files(found) for name, found in metadata.items()})


def group_files(m: MapArray, windows: Sequence[Window], *, together: bool) -> dict[str, bytes]:
    """Return the files of a map's group, as zarr would write them; ``together`` with the metadata of its arrays."""
    told: list[Any] = [m.title]
    for window in m.stored(windows):
        told += window.values()
    said = [json.dumps(value) for value in told]
    return {
        name: "".join(part if n % 2 == 0 else said[int(part)] for n, part in enumerate(parts)).encode()
        for name, parts in _parts(replace(m, image="", fill=0), repr(m.fill), together=together).items()
    }


@lru_cache(maxsize=256)
def _parts(m: MapArray, fill: str, *, together: bool) -> dict[str, list[str]]:
    """Return the files of a group with gaps: between the texts, the numbers of what is said of a map in each.

    How zarr lays out its JSON does not depend on a title and on numbers, and to write it anew takes milliseconds.
    """
    mark = uuid.uuid4().hex
    attributes = m.attributes([Window.of(0.0, 1.0)] * len(m.channels))
    inside = attributes.get("ome", attributes)
    inside["multiscales"][0]["name"] = f"{mark}-0"
    numbers = count(1)
    for channel in inside["omero"]["channels"]:
        channel["window"] = {name: f"{mark}-{next(numbers)}" for name in channel["window"]}
    arrays = ConsolidatedMetadata(_form(m, fill).metadata) if together else None
    made = files(GroupMetadata(attributes, zarr_format(m), arrays))
    return {name: re.split(f'"{mark}-([0-9]+)"', data.decode()) for name, data in made.items()}


def files(metadata: Any) -> dict[str, bytes]:
    """Return the files of an array's or group's metadata; in format 2 what is consolidated, a file of its own, first.

    >>> sorted(files(GroupMetadata({}, 2)))
    ['.zattrs', '.zgroup']
    """
    found = metadata.to_buffer_dict(default_buffer_prototype())
    return {name: found[name].to_bytes() for name in sorted(found, key=lambda name: name != ".zmetadata")}


def root_files(
    attributes: Mapping[str, Any], form: Literal[2, 3], together: ConsolidatedMetadata | None
) -> dict[str, bytes]:
    """Return the files of a store's root, whose attributes may name thousands of features.

    Zarr would copy these part by part and indent all, which takes a second where a layer has five hundred features.
    """
    if form == 2:  # all that is consolidated holds the attributes, too
        return files(GroupMetadata(dict(attributes), form, together))
    root = GroupMetadata({}, form, together).to_dict()
    return {"zarr.json": json.dumps({**root, "attributes": attributes}).encode()}
