"""Whether what was written is still what is there: stored bytes against their records."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import zarr

from pipeline.errors import HaloflowError, explain
from pipeline.storage.chunkfiles import checksum
from pipeline.storage.place import Place
from pipeline.storage.records import Units

OPEN = 64
"""Arrays that stay open: to open one takes ten times as long as to look at a unit, and records of one come together."""


class Intact:
    """The write units of a store, as they are, to be held against their records."""

    def __init__(self, store: Place) -> None:
        self._store = store
        self._opened = lru_cache(OPEN)(lambda array: zarr.open_array((store / array).store(), mode="r").metadata)

    def keys(self, units: Units) -> Iterator[str]:
        """Give the key of each write unit in the store, in the order of its record."""
        if not units.sizes:
            return
        metadata = self._opened(units.array)
        for place in product(*(range(f, f + n) for f, n in zip(units.first, units.counts, strict=True))):
            yield f"{units.array}/{metadata.encode_chunk_key(place)}"

    def faults(self, units: Units) -> Iterator[tuple[str, str]]:
        """Give the key of each write unit whose stored bytes are not those recorded, and what is wrong with it.

        Where nobody can say which units an array has, its path stands for them.
        """
        try:
            keys = list(self.keys(units))
        except HaloflowError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a damaged array makes zarr raise
            yield units.array, f"{units.array}: its metadata cannot be read ({explain(error)})"
            return
        for key, size, expected in zip(keys, units.sizes, units.sums, strict=True):
            try:
                data = self._store.read(key)
            except OSError as error:
                yield key, f"{key} cannot be read ({explain(error)})"
                continue
            if len(data or b"") != size:
                wrong = "is missing" if data is None else f"has {len(data)} bytes, and {size} were written"
                yield key, f"{key} {wrong}"
            elif checksum(data or b"") != (expected if size else checksum(b"")):
                yield key, f"{key} has another checksum than what was written"

    def holds(self, units: Units) -> bool:
        """Say whether all the stored bytes are those recorded."""
        try:
            return next(self.faults(units), None) is None
        except Exception:  # noqa: BLE001 - what cannot be asked is made again
            return False
