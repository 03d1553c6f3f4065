"""The output store: one Zarr v3 group a run, in it a group an image, in that an OME-Zarr image for each kept layer.

The run's own things lie under one reserved name in the root's attributes. What a run has made is complete when its
``complete`` mark is true; that mark is written last.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import product, takewhile
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.common import ZMETADATA_V2_JSON
from zarr.core.group import ConsolidatedMetadata, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import StorePath

from pipeline.errors import HaloflowError, OutputError
from pipeline.geometry import Region
from pipeline.storage.cache import ChunkCache
from pipeline.storage.images import RESERVED
from pipeline.storage.maps import Level, MapArray
from pipeline.storage.metadata import Window
from pipeline.storage.place import METADATA, Place, Where
from pipeline.storage.pyramid import Stored, shrunk, whole_unit


def check(store: Where, inputs: Sequence[Where], *, overwrite: bool) -> None:
    """Refuse a target that exists, is not ours to overwrite, or overlaps an input; touches nothing."""
    place = Place.of(store)
    for source in map(Place.of, inputs):
        if place.lies_in(source):
            raise OutputError(f"output.store: {store} lies inside the input {source}; name a place outside of it")
        if source.lies_in(place):
            raise OutputError(f"output.store: the input {source} lies inside {store}; name another place")
    if place.is_local:
        _check_above(place)
    elif place.is_read_only:
        raise OutputError(f"output.store: nothing can be written to {store}; name a folder or a bucket")
    if not place.exists():
        return
    if not overwrite:
        raise OutputError(f"output.store: {store} exists already; give --overwrite to replace it, or another name")
    if not _is_ours(place):
        raise OutputError(
            f"output.store: {store} exists and was not made by haloflow, so --overwrite will not delete it; "
            "name another place, or remove it yourself"
        )


def _check_above(store: Place) -> None:
    """Refuse a folder that cannot be made."""
    target = store.path.resolve()
    above = next(parent for parent in target.parents if parent.exists())
    if not above.is_dir():
        raise OutputError(f"output.store: {above} is a file, so {store} cannot be made")
    if not os.access(above, os.W_OK):
        raise OutputError(f"output.store: {above} cannot be written, so {store} cannot be made")


def _is_ours(store: Place) -> bool:
    try:
        if not store.is_local:
            return RESERVED in _attributes(store)
        return RESERVED in zarr.open_group(store.store(), mode="r").attrs
    except HaloflowError:
        raise
    except Exception:  # noqa: BLE001 - whatever stands there, it is no store of ours
        return False


def create(store: Where, maps: Sequence[MapArray], record: dict[str, Any]) -> None:
    """Make the store and every array in it, empty; an older run of ours is removed once the new one stands."""
    place = Place.of(store)
    attributes = {RESERVED: {**record, "complete": False}}
    try:
        if place.is_local:
            _create_folder(place.path, maps, attributes)
        else:
            _create_in_place(place, maps, attributes)
    except HaloflowError:
        raise
    except Exception as error:
        raise OutputError(f"output.store: {store} cannot be made: {error}") from error


def _create_folder(target: Path, maps: Sequence[MapArray], attributes: dict[str, Any]) -> None:
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        _fill(zarr.create_group(staged, zarr_format=zarr_format(maps), attributes=attributes), maps)
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)  # an interrupt, too, leaves nothing half made


def _create_in_place(store: Place, maps: Sequence[MapArray], attributes: dict[str, Any]) -> None:
    """Make a store where nothing can be renamed: its root's attributes come first, and only where there are none.

    They say whose the store is, so one whose making was interrupted is known as ours. An older run's things are removed
    by the names in its own record, its root last.
    """
    if (old := _attributes(store)) is not None:
        names = [image["name"] for image in old[RESERVED]["plan"]["images"]]
        for name in (*(name for name in names if "/" not in name), RESERVED, *reversed(METADATA)):
            store.delete(name)
    form = zarr_format(maps)
    files = GroupMetadata(attributes, form).to_buffer_dict(default_buffer_prototype())
    for name in sorted(files, key=METADATA.index):
        if not store.create(name, files[name].to_bytes()):
            raise OutputError(f"output.store: another run has just made {store}; name another place")
    _fill(zarr.open_group(store.store(), mode="r+", zarr_format=form), maps)


def _attributes(store: Place) -> Any:
    """Return the attributes of the group at the root of a store, also of one that is only half made."""
    if (found := store.read("zarr.json")) is not None:
        return json.loads(found)["attributes"]
    return None if (found := store.read(".zattrs")) is None else json.loads(found)


def _fill(root: zarr.Group, maps: Sequence[MapArray]) -> None:
    form = zarr_format(maps)
    for image in dict.fromkeys(m.image for m in maps):
        root.create_group(image)
    for m in maps:
        group = root.create_group(m.group, attributes=m.attributes([Window.of(-1.0, 1.0)] * len(m.channels)))
        for number, level in enumerate(m.levels):
            names = ("c", "y", "x")
            group.create_array(
                str(number),
                shape=(len(m.channels), *level.extents),
                chunks=(1, *level.chunks),
                shards=(1, *level.shards) if level.shards else None,
                dtype=m.encoding.dtype,
                compressors=m.compression.made(form),
                fill_value=m.fill,
                chunk_key_encoding={"name": "default" if form == 3 else "v2", "separator": "/"},
                dimension_names=names if form == 3 else None,
                # Format 2 has no names of dimensions; this is where xarray looks for them.
                attributes={**m.encoding.attributes, **({} if form == 3 else {"_ARRAY_DIMENSIONS": names})},
            )


def zarr_format(maps: Sequence[MapArray]) -> Literal[2, 3]:
    """Return the format of Zarr that the maps' version of OME-Zarr lies in."""
    return 2 if maps[0].version == "0.4" else 3


def units_of(level: Level, region: Region) -> Iterator[tuple[int, int]]:
    """Give the places (y, x) of the write units of a level that a region of whole ones covers.

    A task that makes a region of a map writes these places of it, of every channel, and the same places of every level
    made along with it.
    """
    rows, columns = (range(i.start // n, -(-i.stop // n)) for i, n in zip(region, level.unit, strict=True))
    yield from product(rows, columns)


def write(store: Where, m: MapArray, region: Region, units: Stored, cache: ChunkCache | None = None) -> int:
    """Write the units of a map that a region (y, x) covers, and of the levels made along; return the bytes of all.

    Parameters
    ----------
    store, m
        The map and where it is.
    region
        Of whole write units of the map.
    units
        The stored numbers (rows, columns, maps, y, x).
    cache
        Of a run: it has the arrays open.
    """
    if not units.size:
        return 0
    cache = cache or ChunkCache(0)
    levels = list(takewhile(lambda level: level.along, m.levels))
    group = Place.of(store) / m.group
    arrays = [cache.open(group / str(number), "r+") for number in range(len(levels))]
    written = 0
    for place, unit in zip(units_of(levels[0], region), units.reshape(-1, *units.shape[2:]), strict=True):
        values = unit[:, *(slice(len(i)) for i in levels[0].region(place))]
        for level, array in zip(levels, arrays, strict=True):
            if level.reduction != (1, 1):
                values = shrunk(m, values, level.steps)
            whole = unit if level is levels[0] else whole_unit(m, level, values)
            for c in range(len(m.channels)):
                array.write((c, *place), whole[c : c + 1])
            written += values.nbytes
    return written


def finish(store: Where, windows: Mapping[MapArray, Sequence[Window]], record: dict[str, Any]) -> None:
    """Write what is known at the end: what to show of each map, the consolidated metadata, and the run's record.

    The consolidated metadata repeats that of all groups and arrays in one place, so that readers need one look. The
    record with its mark comes last, and in one piece.
    """
    root = zarr.open_group(Place.of(store).store(), mode="r+", use_consolidated=False)
    form = root.metadata.zarr_format
    images: dict[str, dict[str, Any]] = {}
    for m, shown in windows.items():
        arrays = {str(number): root[f"{m.group}/{number}"].metadata for number in range(len(m.levels))}
        group = GroupMetadata(m.attributes(shown), form, ConsolidatedMetadata(arrays))
        _put(root.store_path / m.group, group)
        images.setdefault(m.image, {})[m.layer] = group
    inside: dict[str, Any] = {i: GroupMetadata({}, form, ConsolidatedMetadata(layers)) for i, layers in images.items()}
    _put(root.store_path, GroupMetadata({**root.attrs, RESERVED: record}, form, ConsolidatedMetadata(inside)))


def _put(place: StorePath, group: GroupMetadata) -> None:
    """Write a group's metadata, what is consolidated first: in format 2 it is a file of its own."""
    files = group.to_buffer_dict(default_buffer_prototype())
    for name in sorted(files, key=lambda name: name != ZMETADATA_V2_JSON):
        sync((place / name).set(files[name]))
