"""From one image file to an OME-Zarr image: unit by unit, several at once, each recorded when it is done."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from pipeline.describe import parse_size, size, times
from pipeline.errors import InputError, OutputError, PlanError, yes_or_no
from pipeline.ingesting.layout import Layout
from pipeline.ingesting.records import Done, Records
from pipeline.ingesting.targets import source_of, target_of, told_of, writing
from pipeline.ingesting.work import Work
from pipeline.pictures import open_picture
from pipeline.pictures.base import Opening, reading
from pipeline.sections import CODECS, check_level
from pipeline.storage.codecs import Codec
from pipeline.storage.images import RESERVED
from pipeline.storage.lock import Lock, acquire
from pipeline.storage.place import Place


@dataclass(frozen=True)
class Ingested:
    """What `ingest` made.

    Parameters
    ----------
    store
        Where it is, as it was asked for.
    axes, shape
        Of the array: c, y and x, and t and z where they have more than one pixel.
    channels
        The names of the channels.
    dtype
        The type of the pixels.
    chunks, shards
        Of (y, x), in pixels.
    bytes
        What the store takes on disk; 0 in a bucket, of which that is not asked.
    missing
        How many strips or tiles the file leaves out (sparse TIFF); they were read as the file's fill value.
    resumed
        How many units of work, of how many, were done already.
    notes
        What was not taken over from the file, a line each.
    """

    store: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    channels: tuple[str, ...]
    dtype: str
    chunks: tuple[int, int]
    shards: tuple[int, int] | None
    bytes: int
    missing: int = 0
    resumed: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()

    @property
    def extents(self) -> tuple[int, int]:
        """The pixels along (y, x)."""
        return self.shape[-2], self.shape[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, ready for JSON."""
        found = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {**found, "extents": list(self.extents)}

    def __str__(self) -> str:
        shards = f" in shards of {times(self.shards)}" if self.shards else ""
        taken = f", {size(self.bytes)} on disk" if self.bytes else ""
        gaps = f", {self.missing} strips or tiles were missing and read as fill" if self.missing else ""
        again = f", {self.resumed[0]} of {self.resumed[1]} units were done already" if self.resumed[0] else ""
        told = f"{self.store}: {times(self.shape)} {self.dtype}, chunks {times(self.chunks)}{shards}"
        return "\n".join([told + taken + gaps + again, *(f"note: {note}" for note in self.notes)])


def ingest(
    path: str | Path,
    store: str | Path,
    *,
    chunks: int | tuple[int, int] = 1024,
    shards: int | tuple[int, int] | None = None,
    compression: str = "lz4",
    level: int | None = None,
    pages: Literal["t", "c", "z"] | None = None,
    memory: str | int = "1GB",
    workers: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ingested:
    """Turn an image file into an OME-Zarr 0.5 image: a Zarr v3 group with one array ``0``.

    Its axes are c, y and x, and t and z where the file has several planes along them. Pixel values are kept as they are
    stored, to the bit: no orientation tag, colour profile or WhiteIsZero of a TIFF is applied. A palette PNG becomes
    red, green and blue. Of a TIFF, the first series is taken at full resolution. Sizes of pixels and names of channels
    are taken over; where a GeoTIFF lies, too (`pipeline.storage.geo`).

    A shard, or a row of them, is one unit of work. Finished units are recorded, so that an ingest that was stopped, in
    whatever way, goes on with ``resume``. Until it is whole the store is marked, and is no input of a run.

    Parameters
    ----------
    path
        A file of a format in `pipeline.pictures`, or one that bioio's plugins read, of booleans, integers or floats.
    store
        Where the image goes: a path or a URL.
    chunks, shards
        The extent of a chunk, and of a shard of several chunks, in pixels: a number, or (y, x).
    compression, level
        ``lz4``, ``zstd`` or ``none``; and how hard to try, from 1.
    pages
        What the pages of a TIFF are that does not say so.
    memory
        Roughly what may be held at once beside the program itself, in bytes or as in "2GB". TIFF and ``.npy`` are
        streamed, and take a third of it at the most.
    workers
        How many units are worked on at once, at the most; None for one a core. Fewer where memory is short.
    overwrite
        Whether a Zarr store that stands at ``store`` is replaced, once the file has been found to be an image.
    resume
        Whether an ingest that was stopped goes on. If there is none, it begins.
    storage_options
        What opens ``store`` where it is a URL; written nowhere.
    progress
        Called with the number of units done and of all units, whenever some are done.

    Returns
    -------
    Ingested
        What was made.

    Raises
    ------
    InputError
        The file is missing, is no such image, is damaged or cut short, or has axes or pixels of another kind. Nothing
        is left of an ingest that was not resumed.
    OutputError
        The store exists already, or cannot be made, or the chunks or the compression are not possible, or
        the ingest to resume was of another file or begun with other options, or another process is at it.
    PlanError
        ``memory`` is not a number of bytes, or there are no ``workers``.
    RunError
        The store cannot be written to any more, such as on a full disk; ``resume`` goes on with what is done.
    TypeError
        ``overwrite`` or ``resume`` is neither True nor False.
    """
    yes_or_no(overwrite=overwrite, resume=resume)
    if workers is not None and workers < 1:
        raise PlanError(f"workers {workers}: expected at least 1")
    source = source_of(path)
    limit = parse_size(memory)
    wanted = _pair("chunks", chunks)
    grouped = None if shards is None else _pair("shards", shards)
    if grouped and any(s % c for s, c in zip(grouped, wanted, strict=True)):
        raise OutputError(
            f"shards of {times(grouped)} do not hold whole chunks of {times(wanted)}; make them a multiple"
        )
    if compression not in CODECS:
        raise OutputError(f"compression {compression!r}: expected one of {', '.join(CODECS)}")
    try:
        check_level(compression, level)
    except ValueError as error:
        raise OutputError(f"compression {compression!r}: {error}") from None
    where = Place.of(os.fspath(store), storage_options)
    place, told = target_of(where, source, overwrite=overwrite, resume=resume)
    with ExitStack() as stack:
        with reading(path):
            picture = stack.enter_context(open_picture(source, Opening(str(path), limit, pages)))
        layout = Layout.of(picture, wanted, grouped, Codec(compression, level), limit // 4)
        work = Work(str(path), str(store), place, picture, layout, Records(place), progress)
        most = max(1, limit // 3 // (3 * layout.unit_bytes + picture.held))
        done = _done(work, told, _identity(source), min(workers or _cores(), most))
    return Ingested(
        store=str(store),
        axes=layout.axes,
        shape=layout.shape,
        channels=picture.channels,
        dtype=picture.dtype,
        chunks=layout.chunks,
        shards=layout.shards,
        bytes=_taken(place.path) if place.is_local else 0,
        missing=picture.missing,
        resumed=(len(done), layout.count),
        notes=picture.notes,
    )


def _done(work: Work, told: dict[str, Any] | None, identity: dict[str, Any], workers: int) -> dict[int, Done]:
    """Ingest what is not done, as the store's one owner, and return what was done already."""
    if told and told.get("complete"):
        known = work.resume(told, identity)
        with writing(str(work.place)):  # what one that was killed in its last steps has left
            work.records.remove()
            work.place.delete(RESERVED)
        return known
    if not told:
        work.begin(identity)
    try:
        with _owned(work.place) as lock:
            now = told_of(work.place) or {} if told else {}  # another may have gone on, and ended, since it was told
            known = work.resume(now, identity) if told else {}
            if not now.get("complete"):
                work.do(known, workers, lock)
    except InputError:
        if not told:
            work.place.delete()
        raise
    work.place.delete(RESERVED)  # the locks: nobody will own the store again
    return known


@contextmanager
def _owned(place: Place) -> Iterator[Lock]:
    """Own a store; raises `OutputError` that names the owner where another does."""
    with writing(str(place)):
        lock = acquire(place, "")
    lock.begin(dict)
    try:
        yield lock
    finally:
        lock.release("ended")


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair: tuple[Any, ...] = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2 or any(isinstance(c, bool) or not isinstance(c, Integral) or c < 1 for c in pair):
        raise OutputError(f"{name} {value!r}: expected a number of pixels, at least 1, or two of them (y, x)")
    return int(pair[0]), int(pair[1])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _identity(source: Path) -> dict[str, Any]:
    known = source.stat()
    return {"source": source.name, "bytes": known.st_size, "modified": known.st_mtime_ns}


def _taken(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
