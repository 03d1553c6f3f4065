"""Formats of one file: a file a format, the registry here.

Every module of this folder that defines a `WRITER` is in the registry, by the endings of the files it writes.
"""

from importlib import import_module
from pkgutil import iter_modules

from pipeline.exporting.base import Writer

__all__ = ["WRITERS", "Writer"]


def _collect() -> dict[str, Writer]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {suffix: m.WRITER for m in modules if hasattr(m, "WRITER") for suffix in m.WRITER.suffixes}


WRITERS: dict[str, Writer] = _collect()
"""Writers by the endings of file names."""
