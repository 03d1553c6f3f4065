"""The output store: one Zarr v3 group a run, in it a group an image, in that an OME-Zarr image for each kept layer.

The run's own things lie under one reserved name in the root's attributes and as a group beside the images: its locks
and its records. What a run has made is complete when its ``complete`` mark is true; that mark is written last.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product, takewhile
from typing import Any, Literal

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.common import ZMETADATA_V2_JSON
from zarr.core.group import ConsolidatedMetadata, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import StorePath

from pipeline.errors import HaloflowError, OutputError
from pipeline.geometry import Region
from pipeline.storage import records
from pipeline.storage.cache import ChunkCache
from pipeline.storage.images import RESERVED
from pipeline.storage.machine import bring_to_disk
from pipeline.storage.maps import Level, MapArray
from pipeline.storage.metadata import Window
from pipeline.storage.place import Place, Where
from pipeline.storage.pyramid import STAGING, Stored, shrunk, staging, whole_unit
from pipeline.storage.records import Units
from pipeline.storage.source import place_of


def create(store: Where, maps: Sequence[MapArray], record: dict[str, Any]) -> None:
    """Make the store and every array in it, empty; raises `OutputError` where that cannot be."""
    form, place = zarr_format(maps), Place.of(store)
    try:
        zarr.create_group(place.store(), zarr_format=form, attributes={RESERVED: {**record, "complete": False}})
        zarr.create_group((place / RESERVED).store(), zarr_format=form)
        if place.is_local:
            (place.path / records.FOLDER).mkdir(parents=True)
    except HaloflowError:
        raise
    except Exception as error:
        raise OutputError(f"output.store: {store} cannot be made: {error}") from error
    add(store, maps)


def add(store: Where, maps: Sequence[MapArray]) -> None:
    """Make the arrays of maps that a store does not have yet, empty.

    Raises `OutputError` where that cannot be, or where one is there that is not what would be made.
    """
    try:
        root = zarr.open_group(Place.of(store).store(), mode="r+", use_consolidated=False)
        for image in dict.fromkeys(m.image for m in maps):
            root.require_group(image)
        for m in maps:
            _add(root, m)
    except HaloflowError:
        raise
    except Exception as error:
        raise OutputError(f"output.store: {store} cannot be made: {error}") from error


def _add(root: zarr.Group, m: MapArray) -> None:
    form = root.metadata.zarr_format
    group = root.require_group(m.group)
    if not group.attrs:
        group.attrs.update(m.attributes([Window.of(-1.0, 1.0)] * len(m.channels)))
    for number, level in enumerate(m.levels):
        if str(number) in group:  # an earlier run made it
            _refuse_another(m, number, group[str(number)])
            continue
        group.create_array(
            str(number),
            shape=m.shape(level),
            chunks=m.one(level.chunks),
            shards=m.one(level.shards) if level.shards else None,
            dtype=m.encoding.dtype,
            compressors=m.compression.made(form),
            fill_value=m.fill,
            chunk_key_encoding={"name": "default" if form == 3 else "v2", "separator": "/"},
            dimension_names=m.axes if form == 3 else None,
            # Format 2 has no names of dimensions; this is where xarray looks for them.
            attributes={**m.encoding.attributes, **({} if form == 3 else {"_ARRAY_DIMENSIONS": m.axes})},
        )


def _refuse_another(m: MapArray, number: int, array: Any) -> None:
    """Raise `ValueError` where an array is not what a run would make."""
    level = m.levels[number]
    shards = m.one(level.shards) if level.shards else None
    wanted = (m.shape(level), m.one(level.chunks), shards, str(array.dtype.type(m.fill)))
    made = (array.shape, array.chunks, array.shards, str(array.fill_value))
    if made != wanted:
        raise ValueError(
            f"{m.group}/{number} is {made} and would be {wanted} (shape, chunks, shards, fill value); begin anew with "
            "--overwrite"
        )


def reopen(store: Where) -> None:
    """Take the mark of completion from a store that a run goes on with."""
    root = zarr.open_group(Place.of(store).store(), mode="r+", use_consolidated=False)
    root.attrs[RESERVED] = {**root.attrs[RESERVED], "complete": False}  # type: ignore[dict-item]


def zarr_format(maps: Sequence[MapArray]) -> Literal[2, 3]:
    """Return the format of Zarr that the maps' version of OME-Zarr lies in."""
    return 2 if maps and maps[0].version == "0.4" else 3


def units_of(level: Level, region: Region) -> Iterator[tuple[int, int]]:
    """Give the places (y, x) of the write units of a level that a region of whole ones covers.

    A task that makes a region of a map writes these places of it, of every channel, and the same places of every level
    made along with it.
    """
    rows, columns = (range(i.start // n, -(-i.stop // n)) for i, n in zip(region, level.unit, strict=True))
    yield from product(rows, columns)


def write(
    store: Where, m: MapArray, region: Region, units: Stored, cache: ChunkCache | None = None, plane: int = 0
) -> tuple[list[Units], int]:
    """Write the units of a map that a region (y, x) of a plane covers, and of the levels made along.

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
    plane
        The number of the plane, those of the last outer axis running fastest.

    Returns
    -------
    The record of each level, the map's own first, and the bytes of all before compression.
    """
    if not units.size:
        return [], 0
    cache = cache or ChunkCache(0)
    levels = list(takewhile(lambda level: level.along, m.levels))
    group, partial = Place.of(store) / m.group, staging(Place.of(store))
    arrays = [cache.open(group / str(number), "r+", partial) for number in range(len(levels))]
    places, outer = list(units_of(levels[0], region)), place_of(plane, m.outer)
    written: list[list[list[tuple[int, int]]]] = [[[] for _ in m.channels] for _ in levels]
    total = 0
    for place, unit in zip(places, units.reshape(-1, *units.shape[2:]), strict=True):
        values = unit[:, *(slice(len(i)) for i in levels[0].region(place))]
        for number, (level, array) in enumerate(zip(levels, arrays, strict=True)):
            if level.reduction != (1, 1):
                values = shrunk(m, values, level.steps)
            whole = unit if level is levels[0] else whole_unit(m, level, values)
            for c in range(len(m.channels)):
                chunk = whole[c].reshape(m.one(level.unit))
                written[number][c].append(array.write(m.full(c, place, outer), chunk))
            total += values.nbytes
    first, counts = m.box(region, plane)
    return [
        Units.of(f"{m.group}/{number}", first, counts, [one for channel in made for one in channel])
        for number, made in enumerate(written)
    ], total


def finish(store: Where, windows: Mapping[MapArray, Sequence[Window]], record: dict[str, Any]) -> None:
    """Write what is known at the end: what to show of each map, the consolidated metadata, and the run's record.

    The consolidated metadata repeats that of all groups and arrays in one place, so that readers need one look. The
    record with its mark comes last, and in one piece.
    """
    place = Place.of(store)
    root = zarr.open_group(place.store(), mode="r+", use_consolidated=False)
    form = root.metadata.zarr_format
    images: dict[str, dict[str, Any]] = {}
    for m, shown in windows.items():
        arrays = {str(number): root[f"{m.group}/{number}"].metadata for number in range(len(m.levels))}
        group = GroupMetadata(m.attributes(shown), form, ConsolidatedMetadata(arrays))
        _put(root.store_path / m.group, group)
        images.setdefault(m.image, {})[m.layer] = group
    if place.is_local:
        place.delete(STAGING)
        if record["complete"]:
            bring_to_disk(str(place))
    inside: dict[str, Any] = {i: GroupMetadata({}, form, ConsolidatedMetadata(layers)) for i, layers in images.items()}
    _put(root.store_path, GroupMetadata({**root.attrs, RESERVED: record}, form, ConsolidatedMetadata(inside)))


def _put(place: StorePath, group: GroupMetadata) -> None:
    """Write a group's metadata, what is consolidated first: in format 2 it is a file of its own."""
    files = group.to_buffer_dict(default_buffer_prototype())
    for name in sorted(files, key=lambda name: name != ZMETADATA_V2_JSON):
        sync((place / name).set(files[name]))
