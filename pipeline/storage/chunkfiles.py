"""Chunks that are files of their own, read and written without a detour.

Zarr does its reading and writing in coroutines and threads, for stores that are far away. For a file on a disk that
costs more than the work itself: four chunks of 1024² uint8 take 4.5 ms of processor time to read through zarr, and
1 ms here; twelve of float32 take 93 ms to write, and 70 ms here. What this module does not know (filters, other codecs
and stores) goes through zarr; `pipeline.storage.shards` knows shards.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from gzip import GzipFile
from io import BytesIO
from itertools import product
from typing import Any, Self

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.gzip import GZip
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore

from pipeline.geometry import Interval, Region
from pipeline.storage.files import get, put

_SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}

_LOOKS = 16
"""Places along an axis of a chunk that are looked at to see whether it may be all fill value."""


@dataclass(frozen=True)
class ChunkFiles:
    """An array whose chunks are files: C order, one codec or none.

    Parameters
    ----------
    array
        The Zarr array, which knows the chunks' names.
    folder
        Where its files lie.
    codec
        Of numcodecs; None where chunks are plain bytes.
    dtype
        Of the stored numbers, byte order included.
    staging
        Where files are before they are whole; by default beside their place.
    """

    array: Any
    folder: str
    codec: Any
    dtype: np.dtype[Any]
    staging: str | None = None

    @classmethod
    def of(cls, array: Any, staging: str | None = None) -> "ChunkFiles | None":
        """Return the files of a Zarr array, or None where its chunks are anything else."""
        store, metadata = array.store_path.store, array.metadata
        if not isinstance(store, LocalStore):
            return None
        folder = str(store.root / array.store_path.path)
        if metadata.zarr_format == 2:
            plain = not metadata.filters and metadata.order == "C"
            known = metadata.compressor is None or isinstance(metadata.compressor, Blosc | Zstd | GZip)
            return cls(array, folder, metadata.compressor, array.dtype, staging) if plain and known else None
        return cls._made(array, folder, metadata.codecs, staging)

    @classmethod
    def _made(cls, array: Any, folder: str, codecs: Sequence[Any], staging: str | None) -> Self | None:
        """Return the files of an array of Zarr's format 3 whose chunks go through these codecs, or None."""
        head, *rest = codecs
        if not isinstance(head, BytesCodec) or len(rest) > 1:
            return None
        codec = numcodec(rest[0]) if rest else None
        if rest and codec is None:
            return None
        order = ">" if head.endian and head.endian.value == "big" else "<"
        return cls(array, folder, codec, array.dtype.newbyteorder(order), staging)

    def read(self, box: Region, *, whole: bool = False) -> NDArray[Any]:
        """Return the pixels of a box, one interval for each axis of the array.

        Raises `FileNotFoundError` where a chunk is not stored of an array that is known to be ``whole``.
        """
        places = list(self._places(box))
        if len(places) == 1 and box == self._area(places[0]):
            return self._alone(places[0], whole=whole)
        out = np.empty([len(interval) for interval in box], self.dtype)
        for place in places:
            chunk, area = self._chunk(place, whole=whole), self._area(place)
            cuts = [a.intersect(i) for a, i in zip(area, box, strict=True)]
            into = tuple(c.within(i) for c, i in zip(cuts, box, strict=True))
            out[into] = (
                self._filling if chunk is None else chunk[tuple(c.within(a) for c, a in zip(cuts, area, strict=True))]
            )
        return out

    def _alone(self, place: tuple[int, ...], *, whole: bool) -> NDArray[Any]:
        """Return one chunk as it was decoded, to be written to if need be."""
        chunk = self._chunk(place, whole=whole)
        if chunk is None:
            return np.full(self._sizes, self._filling, self.dtype)
        return chunk if chunk.flags.writeable else chunk.copy()

    def write(
        self, place: tuple[int, ...], chunk: NDArray[Any], check: Callable[[], None] = lambda: None
    ) -> tuple[int, int]:
        """Write a whole chunk, and return its stored bytes and their checksum; ``check`` raises where it must not be.

        One of nothing but the fill value is left out, and whatever lay in its place is removed: it has no bytes.
        """
        key = self.array.metadata.encode_chunk_key(place)
        encoded = self._encoded_unit(chunk)
        if encoded is None:
            check()
            with suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{key}")
            return 0, 0
        self._put(key, encoded, check)
        return len(encoded), checksum(encoded)

    def _encoded_unit(self, chunk: NDArray[Any]) -> bytes | None:
        """Return the bytes of what is one file, or None where it is left out."""
        return None if self._is_empty(chunk) else self._encode(chunk)

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(self.array.chunks)

    @property
    def _filling(self) -> Any:
        """The fill value; 0 where none is said, as zarr has it."""
        return 0 if self.array.fill_value is None else self.array.fill_value

    @cached_property
    def _fill(self) -> Any:
        """The bits of the fill value."""
        number = np.array(self._filling, self.array.dtype)
        return number.view(f"u{number.itemsize}")[()]

    def _area(self, place: Sequence[int]) -> Region:
        return tuple(Interval(n * size, (n + 1) * size) for n, size in zip(place, self._sizes, strict=True))

    def _places(self, box: Region) -> Iterator[tuple[int, ...]]:
        covers = (range(i.start // size, -(-i.stop // size)) for i, size in zip(box, self._sizes, strict=True))
        return product(*covers)

    def _chunk(self, place: Sequence[int], *, whole: bool) -> NDArray[Any] | None:
        """Return a chunk, or None where it is not stored."""
        try:
            stored = get(f"{self.folder}/{self.array.metadata.encode_chunk_key(place)}")
        except FileNotFoundError:
            if whole:
                raise
            return None
        return self._decode(stored)

    def _encode(self, chunk: NDArray[Any]) -> bytes:
        plain = np.ascontiguousarray(chunk, self.dtype)
        return self.codec.encode(plain) if self.codec else plain.tobytes()

    def _decode(self, stored: bytes) -> NDArray[Any]:
        """Return a chunk of its bytes; raises what the codec raises for damaged ones."""
        if self.codec is None:
            return np.frombuffer(stored, self.dtype).reshape(self._sizes)
        if isinstance(self.codec, Blosc):
            refuse_cut(stored)
        # Into an array of the right size: bytes that claim to be more do not get it. Of a chunk that is too short
        # numcodecs would leave the rest of the array as it is, whatever was there: so its size is looked at first.
        chunk = np.empty(self._sizes, self.dtype)
        if isinstance(self.codec, GZip):
            with GzipFile(fileobj=BytesIO(stored)) as file:
                inflated = file.read(chunk.nbytes + 1)
            _check(len(inflated), chunk.nbytes)
            return np.frombuffer(inflated, self.dtype).reshape(self._sizes)
        said = zstd_size(stored) if isinstance(self.codec, Zstd) else int.from_bytes(stored[4:8], "little")
        if said is not None:  # where a frame does not say it, numcodecs takes no other size than the array's
            _check(said, chunk.nbytes)
        self.codec.decode(stored, out=chunk)
        return chunk

    def _put(self, key: str, encoded: Any, check: Callable[[], None]) -> None:
        put(f"{self.folder}/{key}", encoded, self.staging, check)

    def _is_empty(self, chunk: NDArray[Any]) -> bool:
        """Say whether all is fill value, to the bit (−0 is not 0); a few pixels tell for most chunks that it is not."""
        bits = chunk.view(self._fill.dtype)
        some = bits[tuple(slice(None, None, max(1, n // _LOOKS)) for n in chunk.shape)]
        return bool((some == self._fill).all()) and bool((bits == self._fill).all())


def _check(size: int, whole: int) -> None:
    if size != whole:
        raise ValueError(f"{size} bytes{' or more' if size > whole else ''} where a chunk has {whole}")


def checksum(data: bytes, before: int = 0) -> int:
    """Return the CRC-32C of bytes, or with that of what comes ``before`` them of both together.

    >>> hex(checksum(b"123456789"))
    '0xe3069283'
    """
    return int(google_crc32c.extend(before, data))


def refuse_cut(stored: bytes) -> None:
    """Raise `ValueError` where bytes that Blosc made are not as many as their header says, in bytes 12 to 15.

    Blosc believes it and would read beyond them.
    """
    if int.from_bytes(stored[12:16], "little") != len(stored):
        raise ValueError(f"{len(stored)} bytes, which is not what its header says: it is damaged or cut short")


def numcodec(codec: Any) -> Any:
    """Return numcodecs' codec for one of zarr's, or None."""
    if isinstance(codec, BloscCodec):
        return Blosc(codec.cname.value, codec.clevel, _SHUFFLES[codec.shuffle.value], codec.blocksize)
    if isinstance(codec, ZstdCodec):
        return Zstd(codec.level, codec.checksum)
    return GZip(codec.level) if isinstance(codec, GzipCodec) else None


def zstd_size(frame: bytes) -> int | None:
    """Return how many bytes the header of a frame says that it holds, if it says so (RFC 8878, 3.1.1.1).

    >>> zstd_size(bytes.fromhex("28b52ffd20050000")), zstd_size(bytes.fromhex("28b52ffd0038"))
    (5, None)
    """
    if len(frame) < 5 or frame[:4] != bytes.fromhex("28b52ffd"):
        raise ValueError("not a frame of zstd")
    told = frame[4]
    single = told >> 5 & 1
    width = (single, 2, 4, 8)[told >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[told & 3]
    if not width:
        return None
    return int.from_bytes(frame[at : at + width], "little") + (256 if width == 2 else 0)
