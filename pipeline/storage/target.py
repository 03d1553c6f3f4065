"""Where a run writes: refused before anything is touched, told what an earlier run said of itself, cleared of it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr

from pipeline.errors import HaloflowError, OutputError
from pipeline.storage import lock, records
from pipeline.storage.findings import TABLES
from pipeline.storage.images import RESERVED
from pipeline.storage.litter import is_bare
from pipeline.storage.lock import look, refuse_if_held
from pipeline.storage.place import METADATA, Place, Where

RUN = f"{RESERVED}/run.json"
"""What a store keeps of its latest run for people to read."""

ROOT = (("zarr.json",), (".zattrs", ".zgroup"))
"""In each format of Zarr the files in which a store says that it is one, and of which run."""


def check(store: Where, inputs: Sequence[Where], *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a target that exists, is not ours to go on with, is held by another run, or overlaps an input.

    Touches nothing.
    """
    check_apart(store, inputs)
    place = Place.of(store)
    if place.is_local:
        try:
            _check_above(place)
        except OSError as error:  # such as a name that is too long
            raise OutputError(f"output.store: {store} cannot be made: {error.strerror}") from None
    elif place.is_read_only:
        raise OutputError(f"output.store: nothing can be written to {store}; name a folder or a bucket")
    if not exists(place):
        return
    refuse_if_held(place)
    if not (overwrite or resume):
        raise OutputError(
            f"output.store: {store} exists already; give --overwrite to replace it, --resume to go on with it, or "
            "another name"
        )
    if not _is_ours(place):
        raise OutputError(
            f"output.store: {store} exists and was not made by haloflow, so "
            f"{'--overwrite will not delete it' if overwrite else '--resume cannot go on with it'}; "
            "name another place, or remove it yourself"
        )


def check_apart(store: Where, inputs: Sequence[Where]) -> None:
    """Refuse a target that overlaps an input."""
    mine = Place.of(store).real
    for source in map(Place.of, inputs):
        theirs = source.real
        if mine.startswith(theirs):
            raise OutputError(f"output.store: {store} lies inside the input {source}; name a place outside of it")
        if theirs.startswith(mine):
            raise OutputError(f"output.store: the input {source} lies inside {store}; name another place")


def exists(store: Place) -> bool:
    """Say whether anything stands at a place, were it only the lock of a run that was killed at once."""
    return (store.exists() and not is_bare(store)) or look(store) is not None


def check_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be made, or that exists and is not to be replaced; touches nothing."""
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent}")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; give --overwrite to replace it, or another name")
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        raise OutputError(f"{path}: cannot be made: {getattr(error, 'strerror', error)}") from None


def _check_above(store: Place) -> None:
    """Refuse a folder that cannot be made."""
    target = Path(os.path.realpath(store.root))
    if target.is_symlink():  # all others have been followed
        raise OutputError(f"output.store: {store} is a link that leads back to itself")
    above = next(parent for parent in target.parents if parent.exists())
    if not above.is_dir():
        raise OutputError(f"output.store: {above} is a file, so {store} cannot be made")
    if not os.access(above, os.W_OK):
        raise OutputError(f"output.store: {above} cannot be written, so {store} cannot be made")


def _is_ours(store: Place) -> bool:
    if look(store):
        return True
    try:
        return RESERVED in zarr.open_group(store.store(), mode="r").attrs
    except HaloflowError:
        raise
    except Exception:  # noqa: BLE001 - whatever stands there, it is no store of ours
        return False


def recorded(store: Place) -> dict[str, Any] | None:
    """Return what a store says of its run; None where there is none, or it was not begun."""
    try:
        found = zarr.open_group(store.store(), mode="r").attrs.get(RESERVED)
    except HaloflowError:
        raise
    except Exception:  # noqa: BLE001 - a store that was being made or removed when its run was killed
        return None
    return found if isinstance(found, dict) else None


def begun(store: Place) -> dict[str, Any] | None:
    """Return what a store says of the run that is to be gone on with; None where the run had not said anything yet.

    Raises `OutputError` where it says what cannot be read: what is done is not to be taken for nothing, and removed.
    """
    found = recorded(store)
    try:
        if found is None and any(all(store.read(name) is not None for name in form) for form in ROOT):
            raise OutputError(
                f"output.store: what {store} says of its run is damaged; bring its metadata back, or begin anew with "
                "--overwrite"
            )
    except OSError as error:
        raise OutputError(f"output.store: {store} cannot be read: {error}") from error
    return found


def clear(store: Place) -> None:
    """Remove what an earlier run of ours made, but for its locks: first what says that it is a store.

    In a bucket others may have put things below the same name, where no run that makes a store would notice. There only
    what the store's own record names is removed, the record last.
    """
    if not store.is_local:
        images = ((recorded(store) or {}).get("plan") or {}).get("inputs", ())
        own = [records.FOLDER, TABLES, RUN, *(f"{RESERVED}/{name}" for name in METADATA)]
        for name in (*images, *own, *reversed(METADATA)):
            store.delete(name)
        return
    for name in METADATA:
        store.delete(name)
    for name in _inside(store, RESERVED) - {lock.FOLDER}:
        store.delete(name)
    for name in _inside(store) - {RESERVED}:
        store.delete(name)


def _inside(store: Place, folder: str = "") -> set[str]:
    """Return the keys and folders right inside a folder of a local store."""
    above, within = f"{folder}/" if folder else "", store.path / folder
    return {f"{above}{path.name}" for path in within.iterdir()} if within.is_dir() else set()
