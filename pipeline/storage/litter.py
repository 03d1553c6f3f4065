"""What a kill leaves half-written in a local store: files that were not renamed into place yet."""

import os
from collections.abc import Iterable
from contextlib import suppress

from pipeline.storage.files import PARTIAL
from pipeline.storage.place import Place


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(PARTIAL)


def is_bare(store: Place) -> bool:
    """Say whether a local place is a folder that holds nothing but folders and half-written files.

    A folder that cannot be looked into may hold anything.
    """
    if not store.is_local or not store.path.is_dir():
        return False
    closed: list[OSError] = []
    found = any(
        any(os.path.islink(f"{folder}/{name}") for name in folders) or not all(map(_is_partial, names))
        for folder, folders, names in os.walk(store.root, onerror=closed.append)
    )
    return not (found or closed)


def sweep(store: Place, folders: Iterable[str]) -> None:
    """Remove half-written files right in folders of a local store, which only its owner may do.

    Whoever has lost the store to the owner may find that what it was about to rename is gone, and ends as it must.
    """
    for folder in folders if store.is_local else ():
        with suppress(FileNotFoundError), os.scandir(f"{store.root}/{folder}") as inside:
            for file in inside:
                if _is_partial(file.name):
                    os.unlink(file.path)
