"""Shards that are files: each holds its chunks, encoded one by one, and at its end an index of where they lie."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.codecs.sharding import ShardingCodecIndexLocation
from zarr.storage import LocalStore

from pipeline.storage.chunkfiles import ChunkFiles, checksum
from pipeline.storage.files import read_from

NOWHERE = 2**64 - 1
"""Offset and length, in an index, of a chunk that is all fill value."""

KNOWN = 64
"""Shards whose index is kept in memory: neighbouring chunks are read one after another."""


@dataclass(frozen=True)
class ShardFiles(ChunkFiles):
    """An array whose shards are files, their index at the end and checked: as zarr writes them by default."""

    @classmethod
    def of(cls, array: Any, staging: str | None = None) -> "ShardFiles | None":
        """Return the files of a Zarr array, or None where its shards are anything else, or there are none."""
        store, metadata = array.store_path.store, array.metadata
        if not isinstance(store, LocalStore) or metadata.zarr_format == 2 or len(metadata.codecs) != 1:
            return None
        outer = metadata.codecs[0]
        if not isinstance(outer, ShardingCodec) or outer.index_location != ShardingCodecIndexLocation.end:
            return None
        known = [isinstance(c, k) for c, k in zip(outer.index_codecs, (BytesCodec, Crc32cCodec), strict=False)]
        if known != [True, True] or len(outer.index_codecs) != 2 or _is_big(outer.index_codecs[0]):
            return None
        return cls._made(array, str(store.root / array.store_path.path), outer.codecs, staging)

    @property
    def _per(self) -> tuple[int, ...]:
        """The number of chunks of a shard along each axis."""
        return tuple(s // c for s, c in zip(self.array.shards, self._sizes, strict=True))

    @property
    def _index_bytes(self) -> int:
        return 16 * prod(self._per) + 4

    def _encoded_unit(self, chunk: NDArray[Any]) -> bytes | None:
        index = np.full((*self._per, 2), NOWHERE, "<u8")
        parts: list[bytes] = []
        at = 0
        for inner in np.ndindex(self._per):
            part = chunk[tuple(slice(n * size, (n + 1) * size) for n, size in zip(inner, self._sizes, strict=True))]
            if not self._is_empty(part):
                parts.append(self._encode(part))
                index[inner] = at, len(parts[-1])
                at += len(parts[-1])
        told = index.tobytes()
        return b"".join([*parts, told, checksum(told).to_bytes(4, "little")]) if parts else None

    def _chunk(self, place: Sequence[int], *, whole: bool) -> NDArray[Any] | None:
        shard, inner = zip(*(divmod(n, per) for n, per in zip(place, self._per, strict=True)), strict=True)
        path = f"{self.folder}/{self.array.metadata.encode_chunk_key(shard)}"
        try:
            index = self._index(path)
            at, length = (int(n) for n in index[inner])
            return None if at == length == NOWHERE else self._decode(get_part(path, at, length))
        except FileNotFoundError:
            if whole:
                raise
            return None

    def _index(self, path: str) -> NDArray[np.uint64]:
        """Return where the chunks of a shard lie; raises `ValueError` where that is damaged."""
        known = self._indices.get(path)
        if known is not None:
            return known
        told = get_part(path, -self._index_bytes, self._index_bytes)
        if checksum(told[:-4]) != int.from_bytes(told[-4:], "little"):
            raise ValueError(f"the index of the shard {os.path.basename(path)} is damaged")
        index = np.frombuffer(told[:-4], "<u8").reshape(*self._per, 2)
        self._indices[path] = index
        if len(self._indices) > KNOWN:
            self._indices.popitem(last=False)
        return index

    @cached_property
    def _indices(self) -> OrderedDict[str, NDArray[np.uint64]]:
        return OrderedDict()


def _is_big(codec: Any) -> bool:
    return codec.endian is not None and codec.endian.value == "big"


def get_part(path: str, start: int, length: int) -> bytes:
    """Return bytes of a file, from a place counted from its end where it is negative; raises where there are fewer."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        first = start if start >= 0 else size + start
        if not 0 <= first <= first + length <= size:
            raise ValueError(f"the shard has {size} bytes, its index names {first} to {first + length}")
        return read_from(descriptor, first, length)
    finally:
        os.close(descriptor)
