"""Chunks that zarr itself decodes get no more memory than a chunk has, whatever they claim or hold.

`pipeline.storage.chunkfiles` decodes into arrays of the right size; zarr takes what comes.
"""

import asyncio
import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numcodecs.abc
import zarr
from numcodecs.compat import ensure_bytes
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.core.array import AsyncArray

from pipeline.storage.chunkfiles import numcodec, refuse_cut, zstd_size

SLACK = 64
"""Bytes that checksums may add to a chunk."""

WIDEST = 16
"""Bytes of a number as a filter may have made it."""

LZMA_MEMORY = 2**27
"""Bytes that a stream of LZMA may ask for to be decoded: more than those of its highest preset do."""

KINDS = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")
"""Codecs that make more of less."""


@dataclass(frozen=True)
class Cap:
    """Decodes by a codec of numcodecs what is to become ``size`` bytes, and at most ``limit``."""

    codec: Any
    size: int
    limit: int

    def decode(self, stored: bytes) -> bytes:
        """Return the decoded bytes; raises `ValueError` where they are too many, and what the codec raises."""
        kind, codec = self.codec.codec_id, self.codec
        if kind == "blosc":
            refuse_cut(stored)
            self._check(int.from_bytes(stored[4:8], "little"))
        elif kind == "lz4":
            self._check(int.from_bytes(stored[:4], "little"))
        elif kind == "zstd":
            said = zstd_size(stored)
            if said is None:
                return self._of_unknown_size(stored)
            self._check(said)
        elif kind in ("gzip", "zlib"):
            return self._inflated(lambda: zlib.decompressobj(zlib.MAX_WBITS | 32), stored)
        elif kind == "bz2":
            return self._inflated(bz2.BZ2Decompressor, stored)
        elif kind == "lzma":
            memory = None if codec.format == lzma.FORMAT_RAW else LZMA_MEMORY
            return self._inflated(lambda: lzma.LZMADecompressor(codec.format, memory, codec.filters), stored)
        return bytes(codec.decode(stored))

    def _check(self, size: int) -> None:
        if size > self.limit:
            raise ValueError(f"{size} bytes or more where a chunk has {self.size}")

    def _of_unknown_size(self, stored: bytes) -> bytes:
        """Decode a frame of zstd that does not say how much it holds: a chunk, or one with its checksum."""
        for size in (self.size, self.size + 4):
            out = bytearray(size)
            try:
                self.codec.decode(stored, out=out)
            except RuntimeError:
                continue
            return bytes(out)
        raise ValueError(f"more or less than the {self.size} bytes that a chunk has, or damaged")

    def _inflated(self, start: Callable[[], Any], stored: bytes) -> bytes:
        """Decode one stream after another, and no byte more than there may be."""
        parts, total = [], 0
        while stored:
            stream = start()
            parts.append(stream.decompress(stored, self.limit + 1 - total))
            total += len(parts[-1])
            self._check(total)
            if not stream.eof:
                raise ValueError("cut short")
            stored = stream.unused_data
        return b"".join(parts)


class _Capped(numcodecs.abc.Codec):  # type: ignore[misc]  # numcodecs carries no types
    """A codec of Zarr's format 2."""

    codec_id = "capped"

    def __init__(self, cap: Cap) -> None:
        self._cap = cap

    def encode(self, buf: Any) -> Any:
        return self._cap.codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> bytes:
        del out
        return self._cap.decode(ensure_bytes(buf))

    def get_config(self) -> Any:
        return self._cap.codec.get_config()


@dataclass(frozen=True)
class _Capped3(BytesBytesCodec):
    """A codec of Zarr's format 3."""

    inner: BytesBytesCodec
    codec: Any
    is_fixed_size = False

    def to_dict(self) -> Any:
        return self.inner.to_dict()

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return self.inner.compute_encoded_size(input_byte_length, chunk_spec)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        size = prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        cap = Cap(self.codec, size, size + SLACK)
        return chunk_spec.prototype.buffer.from_bytes(await asyncio.to_thread(cap.decode, chunk_bytes.to_bytes()))


def capped(array: Any) -> Any:
    """Return an array to read, whose chunks get no more memory than a chunk has."""
    metadata = copy(array.metadata)
    if metadata.zarr_format == 3:
        object.__setattr__(metadata, "codecs", _within(metadata.codecs))
    else:
        size, filters = prod(metadata.chunks) * array.dtype.itemsize, metadata.filters or ()
        most = SLACK + (max(size, prod(metadata.chunks) * WIDEST) if filters else size)
        made = [
            _Capped(Cap(codec, size, most)) if codec and codec.codec_id in KINDS else codec
            for codec in (metadata.compressor, *filters)
        ]
        metadata = replace(metadata, compressor=made[0], filters=made[1:] or None)
    return zarr.Array(AsyncArray(metadata, array.store_path, array.config))


def _within(codecs: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(map(_one, codecs))


def _one(codec: Any) -> Any:
    known = numcodec(codec) or getattr(codec, "_codec", None)
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=_within(codec.codecs))
    if isinstance(codec, BytesBytesCodec) and known is not None and known.codec_id in KINDS:
        return _Capped3(codec, known)
    return codec
