"""Records of what has been written: the only thing that a resumed run trusts.

A worker appends to a segment of its own under ``_haloflow/records``: a frame for each task, after the task's data. A
frame is its length, its checksum and its bytes, so one that was torn by a kill is seen, and ends its segment: nobody
appends to another's segment, and a run that goes on begins new ones. A segment opens with a frame that names the plan
(`identity.digest`) for which its records hold.

What a kill may cost are the tasks under way. What a power cut may cost besides is what the system had not brought to
the disk: segments are not synced one by one, which would bring every chunk to the disk at once, and so a segment names
its machine's boot. Records of a boot that is over are held against the data before they are trusted. The mark of
completion is written when everything before it is on the disk.
"""

import os
import secrets
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from typing import Any, BinaryIO

import msgpack
import numpy as np

from pipeline.errors import OutputError, RunError
from pipeline.storage.chunkfiles import checksum
from pipeline.storage.files import write_to
from pipeline.storage.images import RESERVED
from pipeline.storage.lock import is_followed
from pipeline.storage.machine import boot
from pipeline.storage.place import Place
from pipeline.storage.windows import Sight

FOLDER = f"{RESERVED}/records"

WAIT = 1.0
"""Seconds of work whose records may wait where each write of them is an object."""

_HEAD = struct.Struct("<II")


@dataclass(frozen=True)
class Units:
    """A box of write units of one array, as they were written.

    Parameters
    ----------
    array
        The path of the array in the store.
    first, counts
        The place of the first unit and how many there are, along each axis of the array, in units.
    sizes, sums
        The stored bytes of each unit and their checksum, in C order; a unit of nothing but fill value has no bytes.
        Both are empty for a map that is not stored, but only looked at.
    sight
        What was seen of the map's values in the box, where that is known.
    found
        What tables tell of the box, if there are any, as it was packed.
    """

    array: str
    first: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    sums: tuple[int, ...]
    sight: Sight | None = field(default=None, compare=False)
    found: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls, array: str, first: tuple[int, ...], counts: tuple[int, ...], written: Sequence[tuple[int, int]]
    ) -> "Units":
        """Return the record of units, from the size and the checksum of each."""
        return cls(array, first, counts, tuple(size for size, _ in written), tuple(total for _, total in written))

    @property
    def box(self) -> tuple[slice, ...]:
        """Where the units are on their array's grid of units."""
        return tuple(slice(f, f + n) for f, n in zip(self.first, self.counts, strict=True))

    def pack(self) -> list[Any]:
        """Return the record as msgpack takes it."""
        sizes, sums = np.array(self.sizes, "<u8").tobytes(), np.array(self.sums, "<u4").tobytes()
        seen = self.sight and [
            self.sight.low,
            self.sight.high,
            len(self.sight.samples),
            self.sight.samples.astype("<f4").tobytes(),
        ]
        found = [] if self.found is None else [self.found]
        return [self.array, self.first, self.counts, sizes, sums, seen, *found]

    @classmethod
    def unpack(cls, packed: Sequence[Any]) -> "Units":
        """Return the record that `pack` made; raises `ValueError` where it is none."""
        array, first, counts, seen, _ = outline(packed)
        sizes, sums, found = packed[3], packed[4], packed[6:]
        sight = None
        if seen:
            samples = np.frombuffer(seen[3], "<f4").astype(np.float32).reshape(seen[2], -1)
            sight = Sight(float(seen[0]), float(seen[1]), samples)
        return cls(
            array,
            tuple(first),
            tuple(counts),
            tuple(np.frombuffer(sizes, "<u8").tolist()),
            tuple(np.frombuffer(sums, "<u4").tolist()),
            sight,
            *found,
        )


def outline(
    packed: Sequence[Any],
) -> tuple[str, Sequence[int], Sequence[int], Sequence[Any] | None, bool]:
    """Return of a packed record its array, the first unit, the counts, what was seen, and whether tables tell of it.

    Raises `ValueError` where it is none.
    """
    array, first, counts, sizes, sums, seen, *found = packed
    stored = prod(counts) if sizes or not found else 0
    if len(first) != len(counts) or len(sizes) != 8 * stored or len(sums) != 4 * stored:
        raise ValueError("a record of another number of units than it says")
    return array, first, counts, seen, bool(found)


@dataclass(frozen=True)
class Segments:
    """Where a run's records go: what each of its workers begins a segment from."""

    store: Place
    plan: str
    counter: int
    """Of the run's lock: later runs have higher ones."""

    def begin(self) -> "Segment":
        """Begin a segment."""
        return Segment(self)


class Segment:
    """One worker's records: a file that only grows, or where there are no files, an object for each `flush`.

    Threads of a worker share it. A record writes what waits for a flush, and itself, where that was last done `WAIT`
    seconds ago: so a worker that is killed takes few with it.
    """

    def __init__(self, of: Segments) -> None:
        self._of = of
        self._lock = threading.Lock()
        self._name = f"{FOLDER}/{of.counter:06}-{secrets.token_hex(6)}"
        self._file: int | None = None
        self._waiting: list[bytes] = []
        self._written = time.monotonic()
        self._looked: float | None = None
        self._objects = 0

    def append(self, frame: list[Units] | Mapping[str, Any]) -> None:
        """Add a frame: the records of a task, or what else a run notes.

        Raises `RunError` where the store has been replaced since the segment was begun, and `OSError`.
        """
        packed = [u.pack() for u in frame] if isinstance(frame, list) else frame
        with self._lock:
            if self._of.store.is_local:
                self._put(self._opened(), _framed(packed))
            else:
                self._waiting.append(_framed(packed))
        self.keep_up()

    def keep_up(self) -> None:
        """Write what waits to be written, if that was last done a while ago."""
        if time.monotonic() - self._written >= WAIT:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written; raises what the store raises, and then it waits still."""
        with self._lock:
            if self._waiting:
                self._write()

    def _write(self) -> None:
        """Write what waits as an object; whoever asks for it holds the lock."""
        data = b"".join([_framed(self._header()), *self._waiting])
        self._of.store.write(f"{self._name}-{self._objects:06}", data)
        self._objects += 1
        self._written = time.monotonic()
        self._waiting.clear()

    def check(self) -> None:
        """Raise `RunError` where the store has been replaced: in a bucket, that is asked at most once in `WAIT`."""
        with self._lock:
            if self._of.store.is_local:
                self._opened()
            elif self._looked is None or time.monotonic() - self._looked >= WAIT:
                self._refuse_other_owner()
                self._looked = time.monotonic()

    def _refuse_other_owner(self) -> None:
        if is_followed(self._of.store, self._of.counter):
            raise RunError(f"{self._of.store} was taken over by another run")

    def close(self, *, sync: bool = False) -> None:
        """End the segment, on the disk if asked to; then it raises `RunError` where the store has been replaced."""
        self.flush()
        with self._lock:
            if self._file is not None:
                if sync:
                    os.fsync(self._opened())
                os.close(self._file)
                self._file = None

    def _header(self) -> dict[str, Any]:
        return {"format": 1, "plan": self._of.plan, "boot": boot(), "pid": os.getpid(), "time": time.time()}

    def _opened(self) -> int:
        if self._file is not None:
            if not os.fstat(self._file).st_nlink:
                raise RunError(f"{self._of.store} has been replaced by another run")
            return self._file
        self._refuse_other_owner()
        # Its folder was made when the run began: where it is gone, so is the run's store.
        try:
            path = self._of.store.path / self._name
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            raise RunError(f"{self._of.store} has been replaced by another run, or removed") from None
        self._put(self._file, _framed(self._header()))
        return self._file

    @staticmethod
    def _put(file: int, data: bytes) -> None:
        before = os.fstat(file).st_size
        try:
            write_to(file, data)
        except OSError:
            os.ftruncate(file, before)  # what follows a torn frame would not be read
            raise


def _framed(plain: Any) -> bytes:
    payload: bytes = msgpack.packb(plain)
    return _HEAD.pack(len(payload), checksum(payload)) + payload


def frames_of(segment: BinaryIO, where: str) -> Iterator[Any]:
    """Give the frames of a segment up to the first that is torn; raises `OutputError` that says ``where``."""

    def read(length: int) -> bytes:
        try:
            return segment.read(length)
        except OSError as error:
            raise OutputError(f"{where}: cannot be read: {error.strerror}") from None

    while len(head := read(_HEAD.size)) == _HEAD.size:
        length, expected = _HEAD.unpack(head)
        payload = read(length)
        if len(payload) < length or checksum(payload) != expected:
            return
        yield msgpack.unpackb(payload)


@contextmanager
def open_segment(store: Place, key: str) -> Iterator[BinaryIO]:
    """Open a segment, empty where it is gone: a file as it is, an object at once, for it is of one flush."""
    try:
        segment: BinaryIO = (store.path / key).open("rb") if store.is_local else BytesIO(store.read(key) or b"")
    except FileNotFoundError:
        segment = BytesIO()
    except OSError as error:
        raise OutputError(f"{store}/{key}: cannot be read: {error.strerror}") from None
    with segment:
        yield segment


Opened = tuple[str, Mapping[str, Any], Iterator[Any], BinaryIO]


def segments_of(store: Place, plan: str, since: int = 0) -> Iterator[Opened]:
    """Give the segments of a store that hold for a plan, in their order: key, header, and frames where they are.

    Not those of runs whose lock is before ``since``, with which the store was begun: they came late.
    """
    for key in sorted(key for key in store.list(FOLDER) if key.removeprefix(f"{FOLDER}/") >= f"{since:06}"):
        with open_segment(store, key) as segment:
            frames = frames_of(segment, f"{store}/{key}")
            header = next(frames, None)
            if isinstance(header, dict) and header.get("format") == 1 and header.get("plan") == plan:
                yield key, header, frames, segment


def units_in(store: Place, plan: str, since: int = 0) -> Iterator[Units]:
    """Give all that the records of a store name that hold for a plan, one after another."""
    for _, _, frames, _ in segments_of(store, plan, since):
        for task in (frame for frame in frames if isinstance(frame, list)):
            yield from map(Units.unpack, task)
