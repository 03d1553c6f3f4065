"""What tasks found for tables, read again from the records where it stands, and where the tables are written."""

import tempfile
from array import array as array_of
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.errors import OutputError
from pipeline.storage.images import RESERVED
from pipeline.storage.place import Place
from pipeline.storage.pyramid import STAGING
from pipeline.storage.records import Units, frames_of, open_segment, outline, segments_of

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
            frame = next(frames_of(segment, f"{store}/{self.key}"), None)
        if frame is None:
            raise OutputError(f"{store}/{self.key}: is damaged; begin anew with --overwrite")
        return Units.unpack(frame[self.nth]).found or b""


class Findings:
    """What tasks found in the write units of one array, packed as some numbers each, so that a million stay cheap.

    Parameters
    ----------
    array, axes
        The array's path, and how many axes it has.
    """

    def __init__(self, array: str, axes: int) -> None:
        self._array, self._axes = array, axes
        self._keys: list[str] = []
        self._numbers = array_of("q")

    def add(self, finding: Finding) -> None:
        """Take one; those of a segment come one after another."""
        if self._keys[-1:] != [finding.key]:
            self._keys.append(finding.key)
        box = (*finding.units.first, *finding.units.counts)
        self._numbers.extend((len(self._keys) - 1, finding.at, finding.nth, *box))

    def __len__(self) -> int:
        return len(self._numbers) // (3 + 2 * self._axes)

    def __getitem__(self, number: int) -> Finding:
        width = 3 + 2 * self._axes
        key, at, nth, *box = self._numbers[number * width : (number + 1) * width]
        first, counts = tuple(box[: self._axes]), tuple(box[self._axes :])
        return Finding(self._keys[key], at, nth, Units(self._array, first, counts, (), ()))

    def __iter__(self) -> Iterator[Finding]:
        return (self[number] for number in range(len(self)))


def findings(store: Place, plan: str, since: int = 0) -> Iterator[Finding]:
    """Give what the tasks of a plan found for tables, one after another, without the rows."""
    for key, _, frames, segment in segments_of(store, plan, since):
        at = segment.tell()
        for frame in frames:
            for nth, packed in enumerate(frame if isinstance(frame, list) else ()):
                array, first, counts, _, is_found = outline(packed)
                if is_found:
                    yield Finding(key, at, nth, Units(array, tuple(first), tuple(counts), (), ()))
            at = segment.tell()


def by_array(found: Iterable[Finding]) -> dict[str, Findings]:
    """Return findings, packed, by the path of their array."""
    arrays: dict[str, Findings] = {}
    for finding in found:
        of = finding.units
        if of.array not in arrays:
            arrays[of.array] = Findings(of.array, len(of.first))
        arrays[of.array].add(finding)
    return arrays


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
