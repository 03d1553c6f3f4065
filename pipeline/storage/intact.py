"""Whether what was written is still what is there: stored bytes against their records."""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import zarr

from pipeline.storage.chunkfiles import checksum
from pipeline.storage.place import Place

if TYPE_CHECKING:  # the records look here themselves
    from pipeline.storage.records import Units


def keys(store: Place, units: "Units") -> Iterator[str]:
    """Give the key of each write unit in the store, in the order of its record."""
    if not units.sizes:
        return
    array = zarr.open_array((store / units.array).store(), mode="r")
    for place in product(*(range(f, f + n) for f, n in zip(units.first, units.counts, strict=True))):
        yield f"{units.array}/{array.metadata.encode_chunk_key(place)}"


def faults(store: Place, units: "Units") -> Iterator[tuple[str, str]]:
    """Give the key of each write unit whose stored bytes are not those recorded, and what is wrong with it."""
    for key, size, expected in zip(keys(store, units), units.sizes, units.sums, strict=True):
        data = store.read(key)
        if len(data or b"") != size:
            wrong = "is missing" if data is None else f"has {len(data)} bytes, and {size} were written"
            yield key, f"{key} {wrong}"
        elif checksum(data or b"") != (expected if size else checksum(b"")):
            yield key, f"{key} has another checksum than what was written"


def is_intact(store: Place, units: "Units") -> bool:
    """Say whether all the stored bytes are those recorded."""
    try:
        return next(faults(store, units), None) is None
    except Exception:  # noqa: BLE001 - whatever a damaged array makes zarr raise
        return False
