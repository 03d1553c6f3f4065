"""From one image file (PNG, JPEG, TIFF) to an OME-Zarr image, in blocks of whole chunks."""

import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.describe import parse_size, size, times
from pipeline.errors import InputError, OutputError
from pipeline.pixels import PixelScale
from pipeline.sections import CODECS
from pipeline.storage.codecs import Codec
from pipeline.storage.images import stem
from pipeline.storage.metadata import Placed, Window, describe
from pipeline.storage.pictures import Block, Picture, open_picture, reading

_ZARR = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_MAX_BLOCK = 2**30  # blosc compresses at most 2 GiB at once


@dataclass(frozen=True)
class Ingested:
    """What `ingest` made.

    Parameters
    ----------
    store
        Where it is, as it was asked for.
    channels
        The names of the channels.
    extents, chunks
        Of (y, x), in pixels.
    dtype
        The type of the pixels.
    bytes
        What the store takes on disk.
    missing
        How many strips or tiles the file leaves out (sparse TIFF); they were read as the file's fill value.
    """

    store: str
    channels: tuple[str, ...]
    extents: tuple[int, int]
    dtype: str
    chunks: tuple[int, int]
    bytes: int
    missing: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        gaps = f", {self.missing} strips or tiles were missing and read as fill" if self.missing else ""
        return (
            f"{self.store}: {len(self.channels)} × {times(self.extents)} {self.dtype}, "
            f"chunks {times(self.chunks)}, {size(self.bytes)} on disk{gaps}"
        )


def ingest(
    path: str | Path,
    store: str | Path,
    *,
    chunks: int | tuple[int, int] = 1024,
    compression: str = "lz4",
    memory: str | int = "1GB",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Ingested:
    """Turn an image file into an OME-Zarr 0.5 image: a Zarr v3 group with one array ``0`` (c, y, x).

    Pixel values are kept as they are stored, to the bit: no orientation tag, colour profile or WhiteIsZero of
    a TIFF is applied. A palette PNG becomes red, green and blue. Of a TIFF, the first series is taken at full
    resolution. The store appears under its name when it is complete, and not before.

    Parameters
    ----------
    path
        A PNG, JPEG, TIFF, BigTIFF or OME-TIFF file, of booleans, integers or floats.
    store
        Where the image goes: a local path.
    chunks
        The extent of a chunk in pixels: a number, or (y, x). No chunk is larger than the image.
    compression
        ``lz4``, ``zstd`` or ``none``.
    memory
        Roughly what may be held at once beside the program itself, in bytes or as in "2GB". TIFF is streamed,
        and takes far less where its strips or tiles are small.
    overwrite
        Whether a Zarr store that stands at ``store`` is replaced, once the new one is complete.
    progress
        Called with the number of chunks written and of all chunks, after each block.

    Returns
    -------
    Ingested
        What was made.

    Raises
    ------
    InputError
        The file is missing, is no such image, is damaged or cut short, or has axes or pixels of another kind.
    OutputError
        The store exists already, or cannot be written, or the chunks or the compression are not possible.
    PlanError
        ``memory`` is not a number of bytes.
    """
    source = _source(path)
    target = _target(store, source, overwrite=overwrite)
    limit = parse_size(memory)
    wanted = chunks if isinstance(chunks, tuple) else (chunks, chunks)
    if len(wanted) != 2 or any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in wanted):
        raise OutputError(f"chunks {chunks!r}: expected a number of pixels, at least 1, or two of them (y, x)")
    if compression not in CODECS:
        raise OutputError(f"compression {compression!r}: expected one of {', '.join(CODECS)}")
    with ExitStack() as stack:
        with reading(path):
            picture = stack.enter_context(open_picture(source, str(path), limit))
        fitted = (min(wanted[0], picture.extents[0]), min(wanted[1], picture.extents[1]))
        blocks = _blocks(picture, fitted, min(limit // 4, _MAX_BLOCK))
        staged = stack.enter_context(_staged(str(store), target, overwrite=overwrite))
        _fill(
            staged,
            picture,
            blocks,
            path=str(path),
            store=str(store),
            chunks=fitted,
            compression=compression,
            progress=progress,
        )
        taken = sum(file.stat().st_size for file in staged.rglob("*") if file.is_file())
    return Ingested(str(store), picture.channels, picture.extents, picture.dtype, fitted, taken, picture.missing)


def _source(path: str | Path) -> Path:
    if "://" in str(path):
        raise InputError(f"{path}: is a URL; this version reads local files")
    source = Path(path)
    try:
        if source.is_dir():
            if any((source / name).exists() for name in _ZARR):
                raise InputError(f"{path}: is a Zarr store already and needs no ingest; name it in input.images")
            raise InputError(f"{path}: is a directory; name one image file")
        if not source.exists():
            raise InputError(f"{path}: there is no such file (relative to {Path.cwd()})")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not source.is_file():
        raise InputError(f"{path}: is not a regular file")
    return source.resolve()


def _target(store: str | Path, source: Path, *, overwrite: bool) -> Path:
    if "://" in str(store):
        raise OutputError(f"{store} is a URL; this version writes local paths")
    try:
        target = Path(store).resolve()  # a symbolic link is followed, so that what it points to is replaced
        above = next(parent for parent in target.parents if parent.exists())
        if not above.is_dir():
            raise OutputError(f"{above} is a file, so {store} cannot be made")
        if not target.exists():
            return target
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"{store} cannot be written: {error}") from None
    if target == source or target in source.parents:
        raise OutputError(f"the input {source} lies at or inside {store}; name another place")
    if not (target / "zarr.json").is_file():
        raise OutputError(
            f"{store} exists and is not a Zarr store, so --overwrite will not delete it; name another place"
        )
    if not overwrite:
        raise OutputError(f"{store} exists already; give --overwrite to replace it, or another name")
    return target


@contextmanager
def _writing(store: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{store} cannot be written: {error}") from None


@contextmanager
def _staged(store: str, target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden directory beside the target; at the end it takes the target's place, or is removed."""
    stub = f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}"
    new, old = target.with_name(f"{stub}.tmp"), target.with_name(f"{stub}.old")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        with _writing(store):
            new.mkdir(parents=True)
        yield new
        with _writing(store):
            if overwrite and target.exists():
                target.rename(old)
            new.rename(target)  # fails where another ingest was first
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with suppress(OSError):  # there is an old one only if it was moved and not yet replaced
                old.rename(target)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _blocks(picture: Picture, chunks: tuple[int, int], most: int) -> list[Block]:
    """Cut an image into blocks of whole chunks of at most ``most`` bytes.

    A block is as wide as it can be, since strips are, and as tall as what is decoded together.
    """
    (cy, cx), (height, width), count = chunks, picture.extents, len(picture.channels)
    deep = 1 if picture.planar else count
    pixel = deep * np.dtype(picture.dtype).itemsize
    if cy * cx * pixel > most:
        raise OutputError(
            f"chunks of {times(chunks)} take {size(cy * cx * pixel)} ({deep} channels at once), more "
            f"than the {size(most)} that a block may take, a quarter of the memory; ask for smaller ones"
        )
    wide = min(width, most // (cy * pixel) // cx * cx)
    rows = cy * min(math.ceil(picture.tall / cy), most // (wide * pixel) // cy)
    return [
        (slice(c, c + deep), slice(y, min(y + rows, height)), slice(x, min(x + wide, width)))
        for c in range(0, count, deep)
        for y in range(0, height, rows)
        for x in range(0, width, wide)
    ]


def _fill(
    staged: Path,
    picture: Picture,
    blocks: list[Block],
    *,
    path: str,
    store: str,
    chunks: tuple[int, int],
    compression: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the picture to an empty directory as an OME-Zarr image."""
    with _writing(store):
        group = zarr.create_group(str(staged), zarr_format=3)
        array = group.create_array(
            "0",
            shape=(len(picture.channels), *picture.extents),
            chunks=(1, *chunks),
            dtype=picture.dtype,
            compressors=Codec(compression).made(),
            fill_value=0,
            dimension_names=("c", "y", "x"),
            # an absent chunk would read as 0 and pass for lost data later; and −0.0 is not 0
            config={"write_empty_chunks": True},
        )
    low, high = (math.inf, -math.inf) if picture.dtype.startswith("float") else PixelScale(picture.dtype).ends
    done, total = 0, len(picture.channels) * math.prod(map(_parts, picture.extents, chunks))

    def finish(pending: Future[None], block: Block) -> None:
        nonlocal done
        with _writing(store):
            pending.result()
        done += math.prod(_parts(b.stop - b.start, c) for b, c in zip(block, (1, *chunks), strict=True))
        if progress:
            progress(done, total)

    # The writer is a thread of our own: after Ctrl-C the pool waits for the block in hand, so that nothing is
    # written once the directory is removed. And a block is written while the next one is read.
    with ThreadPoolExecutor(1, "ingest") as writer:
        before: tuple[Future[None], Block] | None = None
        for block in blocks:
            with reading(path):
                values = picture.read(block)
            if values.dtype.kind == "f" and (finite := values[np.isfinite(values)]).size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            if before:
                finish(*before)
            before = writer.submit(array.__setitem__, block, values), block
        if before:
            finish(*before)
    scale, unit = picture.scale, picture.unit
    with _writing(store):
        level = Placed("0", (1.0, *scale), (0.0, 0.0, 0.0))
        axes = (("c", None), ("y", unit), ("x", unit))
        shown = [Window.of(low, high)] * len(picture.channels)
        group.attrs.update(describe(stem(store), axes, [level], picture.channels, shown))


def _parts(extent: int, chunk: int) -> int:
    return -(-extent // chunk)
