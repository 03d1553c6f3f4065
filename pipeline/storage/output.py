"""The output store: one Zarr group a run, in it a group an image, in that an OME-Zarr image for each kept layer.

The run's own things lie under one reserved name in the root's attributes and as a group beside the images: its locks
and its records. What a run has made is complete when its ``complete`` mark is true; that mark is written last.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product, takewhile
from typing import Any, Literal

import zarr
from zarr.core.common import ZMETADATA_V2_JSON
from zarr.core.group import ConsolidatedMetadata, GroupMetadata

from pipeline.errors import HaloflowError, OutputError, explain
from pipeline.geometry import Region
from pipeline.storage import lock, records
from pipeline.storage.cache import ChunkCache
from pipeline.storage.forms import empty_group, form_of, group_files, root_files, zarr_format
from pipeline.storage.images import RESERVED
from pipeline.storage.litter import sweep
from pipeline.storage.machine import bring_to_disk
from pipeline.storage.maps import Level, MapArray
from pipeline.storage.metadata import Window
from pipeline.storage.place import Place, Where
from pipeline.storage.pyramid import STAGING, Stored, shrunk, staging, whole_unit
from pipeline.storage.records import Units
from pipeline.storage.source import place_of
from pipeline.storage.tablefiles import NOTED

TOGETHER = 256
"""Images whose metadata stand in one place at the root, at the most.

They take some 3 kB and a millisecond an image, and whoever opens the root reads and parses all of them: of ten thousand
images 30 MB and seconds, to look at one. Where the root has none, zarr and xarray look into its groups one by one, and
each map's group has the metadata of its arrays with its own.
"""


def create(store: Where, record: dict[str, Any], form: Literal[2, 3] = 3) -> None:
    """Make the store, with no image in it yet; raises `OutputError` where that cannot be."""
    place = Place.of(store)
    try:
        _write(place, root_files({RESERVED: {**record, "complete": False}}, form, None))
        _write(place / RESERVED, empty_group(form))
        if place.is_local:
            (place.path / records.FOLDER).mkdir(parents=True)
    except HaloflowError:
        raise
    except Exception as error:
        raise OutputError(f"output.store: {store} cannot be made: {error}") from error


def add(store: Where, maps: Sequence[MapArray], *, new: bool = False) -> None:
    """Make the arrays of maps that a store does not have yet, empty.

    Raises `OutputError` where that cannot be, or where one is there that is not what would be made; and `OSError`.

    Parameters
    ----------
    store, maps
        Where, and of what.
    new
        Whether the store is known to have none of them: then it is not asked.
    """
    place = Place.of(store)
    try:
        wanted = dict(pair for m in maps for pair in _empty(m))
        found = {} if new else place.read_all(wanted)
        place.write_all({key: data for key, data in wanted.items() if _is_damaged(found.get(key))})
        found = {key: data for key, data in found.items() if not _is_damaged(data)}
        others = {key.rpartition("/")[0] for key, data in found.items() if data not in (None, wanted[key])}
        for m in maps:
            for number in form_of(m).files:
                if (array := f"{m.group}/{number}") in others:  # an earlier run made another
                    _refuse_another(m, int(number), zarr.open_array((place / array).store(), mode="r"))
    except (HaloflowError, OSError):  # the system's are of a run under way
        raise
    except Exception as error:
        raise OutputError(f"output.store: {store} cannot be made: {error}") from error


def _is_damaged(metadata: bytes | None) -> bool:
    """Say whether metadata are missing, or no JSON, of which nobody can say what they were."""
    try:
        return metadata is None or not isinstance(json.loads(metadata), dict)
    except ValueError:
        return True


def _empty(m: MapArray) -> Iterator[tuple[str, bytes]]:
    """Give the files of metadata of a map that has no pixels yet, from the group of its image on."""
    for name, data in empty_group(zarr_format(m)).items():
        yield f"{m.image}/{name}", data
    for name, data in group_files(m, [Window.of(-1.0, 1.0)] * len(m.channels), together=False).items():
        yield f"{m.group}/{name}", data
    for number, made in form_of(m).files.items():
        yield from ((f"{m.group}/{number}/{name}", data) for name, data in made.items())


def folders(m: MapArray) -> Iterator[str]:
    """Give the folders that a map's metadata lie in, from that of its image on."""
    yield from (m.image, m.group, *(f"{m.group}/{number}" for number in form_of(m).files))


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
    """Take the mark of completion from a store that a run goes on with, and see that it has all that `create` makes.

    What it says of its tables goes, too: they may be made again.
    """
    place = Place.of(store)
    if place.is_local:
        (place.path / records.FOLDER).mkdir(parents=True, exist_ok=True)
    root = zarr.open_group(place.store(), mode="r+", use_consolidated=False)
    _write(place / RESERVED, empty_group(root.metadata.zarr_format))
    root.attrs[RESERVED] = {**root.attrs[RESERVED], "complete": False, NOTED: {}}  # type: ignore[dict-item]


def units_of(level: Level, region: Region) -> Iterator[tuple[int, int]]:
    """Give the places (y, x) of the write units of a level that a region of whole ones covers.

    A task that makes a region of a map writes these places of it, of every channel, and the same places of every level
    made along with it.
    """
    rows, columns = (range(i.start // n, -(-i.stop // n)) for i, n in zip(region, level.unit, strict=True))
    yield from product(rows, columns)


def write(
    store: Where,
    m: MapArray,
    region: Region,
    units: Stored,
    cache: ChunkCache | None = None,
    plane: int = 0,
    check: Callable[[], None] = lambda: None,
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
    check
        Called before each unit is put into its place; raises where the store is another run's by now.

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
                written[number][c].append(array.write(m.full(c, place, outer), chunk, check))
            total += values.nbytes
    first, counts = m.box(region, plane)
    return [
        Units.of(f"{m.group}/{number}", first, counts, [one for channel in made for one in channel])
        for number, made in enumerate(written)
    ], total


def show(store: Where, maps: Mapping[MapArray, Sequence[Window]]) -> None:
    """Write what is known of maps when they are made: what to show of them, and their arrays' metadata in one place."""
    made = {m: group_files(m, windows, together=True) for m, windows in maps.items()}
    Place.of(store).write_all({f"{m.group}/{name}": data for m, files in made.items() for name, data in files.items()})


def metadata(m: MapArray, windows: Sequence[Window]) -> GroupMetadata:
    """Return what `show` writes of a map, as zarr has it."""
    return GroupMetadata(m.attributes(windows), zarr_format(m), ConsolidatedMetadata(form_of(m).metadata))


def shown(store: Where, group: str) -> GroupMetadata:
    """Return what `show` wrote of a map whose path in the store is ``group``; raises `OutputError` where it cannot."""
    try:
        return zarr.open_group((Place.of(store) / group).store(), mode="r").metadata
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever damaged metadata make zarr raise
        raise OutputError(
            f"output.store: {store}/{group}: its metadata is damaged ({explain(error)}); begin anew with --overwrite"
        ) from None


def finish(store: Where, maps: Mapping[str, GroupMetadata] | None, record: dict[str, Any]) -> None:
    """Write what is known at the end: the consolidated metadata of all maps, and the run's record.

    The consolidated metadata repeats that of all groups and arrays in one place, so that readers need one look. The
    record with its mark comes last, and in one piece.

    Parameters
    ----------
    maps
        What `show` wrote, by the paths of the maps. None where there are so many that one look at all of them is more
        than a reader of one wants: see `TOGETHER`.
    """
    place = Place.of(store)
    root = zarr.open_group(place.store(), mode="r+", use_consolidated=False)
    form = root.metadata.zarr_format
    images: dict[str, dict[str, Any]] = {}
    for path, group in (maps or {}).items():
        image, _, layer = path.partition("/")
        images.setdefault(image, {})[layer] = group
    if place.is_local:
        place.delete(STAGING)
        sweep(place, ("", RESERVED, lock.FOLDER))
        if record["complete"]:
            bring_to_disk(str(place))
    inside: dict[str, Any] = {i: GroupMetadata({}, form, ConsolidatedMetadata(layers)) for i, layers in images.items()}
    if maps is None:
        place.delete(ZMETADATA_V2_JSON)
    together = None if maps is None else ConsolidatedMetadata(inside)
    _write(place, root_files({**root.attrs, RESERVED: record}, form, together))


def _write(place: Place, made: Mapping[str, bytes]) -> None:
    for name, data in made.items():
        place.write(name, data)
