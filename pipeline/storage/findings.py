"""What tasks found for tables, read again from the records where it stands, and where the tables are written."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from pipeline.errors import OutputError
from pipeline.storage.images import RESERVED
from pipeline.storage.place import Place
from pipeline.storage.pyramid import STAGING
from pipeline.storage.records import Units, frames_of, open_segment, segments_of

TABLES = f"{RESERVED}/tables"
"""The folder in a store where its tables lie: in a group that readers of images have no cause to look into."""


@dataclass(frozen=True)
class Finding:
    """Where in a store's records stands what a task found in a box of write units of a map."""

    key: str
    at: int
    nth: int
    units: Units

    def load(self, store: Place) -> bytes:
        """Return what was found; raises `OutputError` where it cannot be read any more."""
        with open_segment(store, self.key) as segment:
            segment.seek(self.at)
            frame = next(frames_of(segment), None)
        if frame is None:
            raise OutputError(f"{store}/{self.key}: is damaged; begin anew with --overwrite")
        return Units.unpack(frame[self.nth]).found or b""


def findings(store: Place, plan: str) -> Iterator[Finding]:
    """Give what the tasks of a plan found for tables, one after another, without the rows."""
    for key, _, frames, segment in segments_of(store, plan):
        at = segment.tell()
        for frame in frames:
            for nth, packed in enumerate(frame if isinstance(frame, list) else ()):
                units = Units.unpack(packed)
                if units.found is not None:
                    yield Finding(key, at, nth, replace(units, sizes=(), sums=(), sight=None, found=None))
            at = segment.tell()


@contextmanager
def written(store: Place, name: str) -> Iterator[BinaryIO]:
    """Give a file to write a table to, which is there when it is whole, and until then what was there before.

    What a kill leaves of it stands where the end of a run tidies up.
    """
    if not store.is_local:
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            store.write(f"{TABLES}/{name}", file.read())
        return
    partial = store.path / STAGING / name
    for folder in (partial.parent, store.path / TABLES):
        folder.mkdir(exist_ok=True)
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(store.path / TABLES / name)
    finally:
        partial.unlink(missing_ok=True)
