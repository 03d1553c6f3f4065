"""Image files, opened so that a block of pixels can be read at a time: a file a format, the registry here.

A format is known by a file's first bytes, never by its name. Every module of this folder that defines a `FORMAT` is in
the registry, so a new format is one new file.
"""

from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from pipeline.errors import InputError
from pipeline.pictures import other
from pipeline.pictures.base import START, Format, Opening, Picture

__all__ = ["FORMATS", "open_picture"]


def _collect() -> tuple[Format, ...]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return tuple(module.FORMAT for module in modules if hasattr(module, "FORMAT"))


FORMATS: tuple[Format, ...] = _collect()
"""All formats that are read by their first bytes."""


def open_picture(source: Path, opening: Opening) -> AbstractContextManager[Picture]:
    """Return the file as a context that yields its picture.

    Raises `InputError` naming the file, as the user wrote it, where it is no image, or too large. What no format here
    knows is handed to bioio, where that is installed.
    """
    with source.open("rb") as file:
        start = file.read(START)
    if not start:
        raise InputError(f"{opening.path}: is empty")
    for known in FORMATS:
        if known.recognises(start):
            return known.open(source, opening)
    return other.open_with_bioio(source, opening, [known.name for known in FORMATS])
