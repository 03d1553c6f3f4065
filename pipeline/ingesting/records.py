"""Which units of an ingest are done: records beside the data, written after it; the mark that all are, written last.

While an ingest is under way, the group's attribute `INGEST` says what is being ingested and how, and objects below the
same name hold records: lists of (unit, least value, greatest value), as many units an object as were done while the one
before was written. At the end the attribute says ``complete`` and the objects are removed.
"""

import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.storage.place import Place
from pipeline.storage.unfinished import INGEST


@dataclass(frozen=True)
class Done:
    """A finished unit: its number, and the least and the greatest finite value of floats (inf, −inf if none)."""

    unit: int
    low: float = math.inf
    high: float = -math.inf


@dataclass
class Records:
    """The records of one ingest at a place."""

    place: Place
    session: str = field(default_factory=lambda: secrets.token_hex(4))
    written: int = 0

    def load(self) -> dict[int, Done]:
        """Return what is recorded, by unit; an object that is no record counts for nothing."""
        found: dict[int, Done] = {}
        for key in self.place.list(INGEST):
            try:
                rows = json.loads(self.place.read(key) or b"")
                done = [Done(int(unit), float(low), float(high)) for unit, low, high in rows]
            except (TypeError, ValueError):
                continue
            found.update((one.unit, one) for one in done)
        return found

    def add(self, done: Sequence[Done]) -> None:
        """Record finished units, whose data is written."""
        rows = [[d.unit, repr(d.low), repr(d.high)] for d in done]
        self.place.write(f"{INGEST}/{self.session}-{self.written}.json", json.dumps(rows).encode())
        self.written += 1

    def remove(self) -> None:
        """Remove all records, once they are of no use."""
        self.place.delete(INGEST)
