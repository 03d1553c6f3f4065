"""An open array as tasks read and write it: through files where its chunks are files, through zarr otherwise."""

import errno
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Literal

import numpy as np
import zarr
from dask.utils import format_bytes
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from pipeline.errors import RunError, explain
from pipeline.geometry import Region
from pipeline.storage.capped import capped
from pipeline.storage.chunkfiles import ChunkFiles, checksum
from pipeline.storage.place import Place
from pipeline.storage.shards import ShardFiles

KNOWN = 64
"""Kinds of arrays that are remembered."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a system says where there is no room."""


class Noting(WrapperStore[Store]):
    """A store to which whole write units are written, and that notes by key the bytes of each and their checksum."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.noted: dict[str, tuple[int, int]] = {}
        self.whole: set[str] = set()
        """The keys of the units that are being written."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return what there is, but nothing of a unit that is being written: of a shard zarr would keep what it has."""
        return None if key in self.whole else await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write, and note it."""
        await super().set(key, value)
        self.noted[key] = (len(value), checksum(value.to_bytes()))


@dataclass(frozen=True)
class Handle:
    """A Zarr array, and its files where it has some; both give the same numbers."""

    array: Any
    files: ChunkFiles | None

    @classmethod
    def open(cls, place: Place, mode: Literal["r", "r+"], staging: str | None = None) -> "Handle":
        """Open the array at a place; raises what zarr raises where there is none.

        Parameters
        ----------
        place
            Of the array.
        mode
            To read it, or to write it, too.
        staging
            The folder for files that are not whole yet; by default beside their place.
        """
        if mode == "r+" and not place.is_local:  # which takes as long as an answer, and is not asked for twice
            far: Any = place.store()
            return cls(zarr.open_array(Noting(far.store), path=far.path, mode=mode), None)
        array: Any = zarr.open_array(place.store(), mode=mode)
        files = ShardFiles.of(array, staging) or ChunkFiles.of(array, staging)
        if files is None and mode == "r+":
            at = array.store_path
            array = zarr.open_array(Noting(at.store), path=at.path, mode=mode)
        elif files is None:
            array = capped(array)
        return cls(array, files)

    def read(self, box: Region, *, whole: bool = False) -> NDArray[Any]:
        """Return the numbers of a box, an interval for each axis.

        Of an array that is known to be ``whole``, a file that is gone is an error; zarr takes it for fill value.
        """
        if self.files:
            return self.files.read(box, whole=whole)
        return np.asarray(self.array[tuple(slice(i.start, i.stop) for i in box)])

    def write(
        self, place: tuple[int, ...], chunk: NDArray[Any], check: Callable[[], None] = lambda: None
    ) -> tuple[int, int]:
        """Write a whole write unit, and return its stored bytes and their checksum: 0 and 0 where it is left out.

        What lies beyond the array's end is dropped, and a unit of nothing but fill value is left out. ``check`` is
        called at the last moment, and raises where nothing must be written any more. Raises `RunError` that names array
        and unit where the system refuses it.
        """
        try:
            return self.files.write(place, chunk, check) if self.files else self._write(place, chunk, check)
        except OSError as error:
            where = self.files.folder if self.files else self.array.store_path
            raise RunError(f"{where}, unit {place}: cannot be written: {self._why(error, chunk)}") from error

    def _why(self, error: OSError, chunk: NDArray[Any]) -> str:
        why = error.strerror or explain(error)
        if error.errno not in FULL or not self.files:
            return why
        free = format_bytes(shutil.disk_usage(self.files.folder).free)
        return f"{why}: it takes {format_bytes(chunk.nbytes)} before compression, and {free} are free there"

    def _write(self, place: tuple[int, ...], chunk: NDArray[Any], check: Callable[[], None]) -> tuple[int, int]:
        """Do what `write` does through zarr."""
        check()
        sizes = self.array.shards or self.array.chunks
        ends = zip(place, sizes, self.array.shape, strict=True)
        box = tuple(slice(p * size, min((p + 1) * size, extent)) for p, size, extent in ends)
        at, key = self.array.store_path, self.array.metadata.encode_chunk_key(place)
        key = f"{at.path}/{key}" if at.path else key
        store: Noting = at.store
        store.whole.add(key)
        try:
            self.array[box] = chunk[tuple(slice(0, b.stop - b.start) for b in box)]
        finally:
            store.whole.discard(key)
        return store.noted.pop(key, (0, 0))


_known: OrderedDict[tuple[bytes, ...], Handle] = OrderedDict()
_lock = Lock()


def open_alike(place: Place, mode: Literal["r", "r+"], staging: str | None = None) -> Handle:
    """Return what `Handle.open` does; of an array whose metadata are those of an earlier one, these are just read.

    They are the same byte for byte. That is for arrays whose chunks are files: nothing but the folder differs between
    them. To understand metadata takes milliseconds, so this process remembers them from one run to the next.
    """
    whole = place.read("zarr.json") if place.is_local else None
    if whole is None:
        return Handle.open(place, mode, staging)
    key = (mode.encode(), (staging or "").encode(), whole)
    with _lock:
        known = _known.get(key)
        if known is not None:
            _known.move_to_end(key)
    if known is not None and known.files:
        return Handle(known.array, replace(known.files, folder=place.root))
    handle = Handle.open(place, mode, staging)
    with _lock:
        _known[key] = handle
        if len(_known) > KNOWN:
            _known.popitem(last=False)
    return handle
