"""Where an ingest reads from and writes to, checked before any work."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import HaloflowError, InputError, OutputError, RunError
from pipeline.pictures.base import reason
from pipeline.storage.lock import refuse_if_held
from pipeline.storage.place import Place
from pipeline.storage.unfinished import INGEST

_ZARR = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


@contextmanager
def writing(store: str, advice: str = "") -> Iterator[None]:
    """Turn whatever writing a store raises into an `OutputError` that names it.

    Where there is advice on how to go on, work has been done: then it is a `RunError`, which gives it.
    """
    try:
        yield
    except HaloflowError:
        raise
    except Exception as error:
        kind = RunError if advice else OutputError
        raise kind(f"{store} cannot be written: {reason(error)}{advice}") from error


def source_of(path: str | Path) -> Path:
    """Return the file to ingest; raises `InputError` where it is none."""
    if "://" in str(path):
        raise InputError(f"{path}: is a URL; ingest reads local files")
    source = Path(path)
    try:
        if source.is_dir():
            if any((source / name).exists() for name in _ZARR):
                raise InputError(f"{path}: is a Zarr store already and needs no ingest; name it in input.images")
            raise InputError(f"{path}: is a directory; name one image file")
        if not source.exists():
            raise InputError(f"{path}: there is no such file (relative to {Path.cwd()})")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not source.is_file():
        raise InputError(f"{path}: is not a regular file")
    return source.resolve()


def told_of(place: Place) -> dict[str, Any] | None:
    """Return what an ingested store says of its ingest; None where it says nothing."""
    return _told(place.read("zarr.json") or b"")


def target_of(place: Place, source: Path, *, overwrite: bool, resume: bool) -> tuple[Place, dict[str, Any] | None]:
    """Return where the image goes, and what is told by the ingest that is to go on there, if there is one.

    Raises `OutputError` where it cannot go there, or where what stands there is neither to be replaced nor to go on.
    """
    store = str(place)
    if overwrite and resume:
        raise OutputError(f"{store}: give --overwrite to start anew, or --resume to go on, and not both")
    if place.is_local:
        place = _local(store, source)
    elif place.is_read_only:
        raise OutputError(f"{store}: cannot be written to; name a path or a bucket")
    with writing(store):
        head = place.read("zarr.json")
        if head is None and (not place.exists() or is_empty(place)):
            return place, None
    told = _told(head or b"")
    if head is None or (overwrite and told is None):
        raise OutputError(
            f"{store} exists and is no image that an ingest made, so --overwrite will not delete it; name another place"
        )
    with writing(store):
        refuse_if_held(place, "")
    if overwrite:
        return place, None
    if resume and told:
        return place, told
    if resume:
        raise OutputError(f"{store} exists and is no ingest, so there is nothing to resume; name another place")
    if told and not told.get("complete"):
        raise OutputError(f"{store} is an unfinished ingest; give --resume to go on, or --overwrite to start anew")
    raise OutputError(f"{store} exists already; give --overwrite to replace it, or another name")


def is_empty(place: Place) -> bool:
    """Say whether a place is a folder with nothing in it."""
    return place.is_local and place.path.is_dir() and not any(place.path.iterdir())


def _told(head: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(head)["attributes"][INGEST]
    except (ValueError, KeyError, TypeError):
        return None
    return told if isinstance(told, dict) else None


def _local(store: str, source: Path) -> Place:
    try:
        target = Path(store).resolve()  # a symbolic link is followed, so that what it points to is replaced
        above = next(parent for parent in target.parents if parent.exists())
        if not above.is_dir():
            raise OutputError(f"{above} is a file, so {store} cannot be made")
        target.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"{store} cannot be written: {error}") from None
    if target == source or target in source.parents:
        raise OutputError(f"the input {source} lies at or inside {store}; name another place")
    return Place.of(str(target))
