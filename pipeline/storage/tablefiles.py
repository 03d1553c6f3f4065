"""The files of a run's tables: what is noted of them when they are written, and whether they still are as it says."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zarr.core.sync import sync
from zarr.storage import StorePath

from pipeline.errors import explain
from pipeline.storage.chunkfiles import checksum
from pipeline.storage.findings import TABLES
from pipeline.storage.place import Place

NOTED = "tables"
"""Where in what a store says of its run that of its tables stands."""

PART = 2**22
"""Bytes of a local file that are looked at together: tables may be larger than memory."""

Noted = dict[str, tuple[int, int]]
"""By the keys of tables the bytes of each, and their checksum."""


def noted_in(record: Mapping[str, Any]) -> Noted:
    """Return what a store says of its tables, as far as it can be read; stores of old say nothing."""
    told = record.get(NOTED)
    pairs = told.items() if isinstance(told, dict) else ()
    return {
        key: (one[0], one[1])
        for key, one in pairs
        if key.rpartition("/")[0] == TABLES and isinstance(one, list) and [*map(type, one)] == [int, int]
    }


def note(store: Place, keys: Iterable[str]) -> Noted:
    """Return what is to be noted of tables that have just been written."""
    return {key: found for key in keys if (found := _measured(store, key))}


def is_as_large(store: Place, key: str, noted: Noted) -> bool:
    """Say whether a table is there, of as many bytes as are noted of it, if any are; it is not read."""
    found = _size(store, key)
    return found is not None and (key not in noted or noted[key][0] == found)


def faults(store: Place, noted: Noted) -> Iterator[str]:
    """Say of each table that is not as is noted what is wrong with it."""
    for key, (size, expected) in noted.items():
        try:
            found = _measured(store, key)
        except OSError as error:
            yield f"{key} cannot be read ({explain(error)})"
            continue
        if found is None:
            yield f"{key} is missing"
        elif found[0] != size:
            yield f"{key} has {found[0]} bytes, and {size} were written"
        elif found[1] != expected:
            yield f"{key} has another checksum than what was written"


def _measured(store: Place, key: str) -> tuple[int, int] | None:
    """Return the bytes of a file and their checksum, or None where there is none; an object is read at once."""
    if not store.is_local:
        data = store.read(key)
        return None if data is None else (len(data), checksum(data))
    size = total = 0
    try:
        with (store.path / key).open("rb") as file:
            while part := file.read(PART):
                size, total = size + len(part), checksum(part, total)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return size, total


def _size(store: Place, key: str) -> int | None:
    try:
        if store.is_local:
            return (store.path / key).stat().st_size
        found = (store / key).store()
        return sync(found.store.getsize(found.path)) if isinstance(found, StorePath) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
