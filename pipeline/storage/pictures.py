"""Image files (PNG, JPEG, TIFF) opened so that a block of pixels can be read at a time.

A TIFF is never held whole, whatever its size; PNG and JPEG are, so their size is checked before decoding.
"""

import logging
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from pipeline.describe import size
from pipeline.errors import HaloflowError, InputError
from pipeline.pixels import stored_dtype

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = ("red", "green", "blue", "alpha")
_MODES = {"1": 1, "L": 1, "I;16": 1, "RGB": 3, "RGBA": 4, "P": 3}
_JPEGS = (6, 7, 33007, 34892)  # TIFF's numbers for the compressions whose YCbCr tifffile turns into RGB
_PRIVATE = 32768  # the first of TIFF's private tags, on which no pixel depends
_UNITS = {
    "km": "kilometer",
    "m": "meter",
    "cm": "centimeter",
    "mm": "millimeter",
    "µm": "micrometer",
    "nm": "nanometer",
    "pm": "picometer",
    "Å": "angstrom",
}

Block = tuple[slice, slice, slice]
"""Of (c, y, x), in pixels."""


@dataclass(frozen=True)
class Picture:
    """An open image file: what is in it, and a function from a block to its pixels (c, y, x)."""

    channels: tuple[str, ...]
    extents: tuple[int, int]
    dtype: str
    read: Callable[[Block], NDArray[Any]]
    planar: bool = False  # whether one channel can be read without the others
    tall: int = 1  # rows that have to be decoded together
    scale: tuple[float, float] = (1.0, 1.0)
    unit: str | None = None
    missing: int = 0


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever reading a file raises into an `InputError` that names it."""
    try:
        yield
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged or hostile file makes the decoders raise
        raise InputError(f"{path}: cannot be read, it may be damaged or cut short: {_reason(error)}") from None


def open_picture(source: Path, path: str, limit: int) -> AbstractContextManager[Picture]:
    """Return the file as a context that yields its picture; ``limit`` is the memory in bytes.

    Raises `InputError` naming ``path``, as the user wrote it, for a file that is no image, or too large.
    """
    with source.open("rb") as file:
        start = file.read(8)
    if start[:4] in _TIFF:
        return _tiff(source, path, limit)
    if start == _PNG or start[:3] == _JPEG:
        return _raster(source, path, limit)
    what = "is no PNG, JPEG or TIFF image" if start else "is empty"
    raise InputError(f"{path}: {what}")


@contextmanager
def _raster(source: Path, path: str, limit: int) -> Iterator[Picture]:
    """Open a PNG or JPEG, which is decoded whole."""
    with source.open("rb") as file:
        head = file.read(26)
        file.seek(0)
        png = head.startswith(_PNG)
        if png and head[24:25] == b"\x10" and head[25:26] != b"\0":  # Pillow would keep the upper 8 bits
            raise InputError(f"{path}: is a PNG with 16 bits a colour, which cannot be read; save it as TIFF")
        # Not through PIL.Image.open, which warns of large images before ours, the user's, limit is checked.
        image: Any = PngImageFile(file) if png else JpegImageFile(file)
        if image.mode not in _MODES:
            raise InputError(f"{path}: has pixels of mode {image.mode}; expected one of {', '.join(_MODES)}")
        bands, item = _MODES[image.mode], 2 if image.mode == "I;16" else 1
        whole = image.width * image.height * bands * item * 2
        if whole > limit:
            raise InputError(
                f"{path}: decoding its {image.height} × {image.width} pixels takes about {size(whole)}, more "
                f"than the memory of {size(limit)}; allow more (--memory), or save it as a tiled TIFF"
            )
        image.load()
    if image.mode == "P":
        image.info.pop("transparency", None)  # else Pillow warns that it is left out
        image = image.convert("RGB")
    dtype = {"1": "bool", "I;16": "uint16"}.get(image.mode, "uint8")

    def read(block: Block) -> NDArray[Any]:
        _, rows, columns = block
        step = max(1, 2**24 // (columns.stop - columns.start))  # crop() warns of more than 89 million pixels
        tops = range(rows.start, rows.stop, step)
        boxes = [(columns.start, top, columns.stop, min(top + step, rows.stop)) for top in tops]
        values = np.concatenate([np.asarray(image.crop(box)) for box in boxes])
        if values.dtype == bool:
            values = values.view("uint8") != 0  # Pillow's True is a byte of 255, NumPy's and Zarr's is 1
        return np.moveaxis(values, 2, 0) if values.ndim == 3 else values[None]

    yield Picture(_names(bands, colour=bands >= 3), (image.height, image.width), dtype, read)


def _names(bands: int, *, colour: bool, alpha: bool = True) -> tuple[str, ...]:
    known = _COLOURS[: 4 if alpha else 3] if colour else ()
    return tuple(known[n] if n < len(known) else str(n) for n in range(bands))


@contextmanager
def _tiff(source: Path, path: str, limit: int) -> Iterator[Picture]:
    """Open a TIFF, of which each block decodes the strips or tiles it needs."""
    log, thread, faults = logging.getLogger("tifffile"), threading.get_ident(), []

    def note(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and record.thread == thread:
            faults.append(record.getMessage())
        return False

    log.addFilter(note)
    try:
        # Of an OME set of several files, others would be opened too, and read as zeros where missing.
        with tifffile.TiffFile(source, _multifile=False) as tif:
            if not tif.series or not math.prod(tif.series[0].shape):
                raise InputError(f"{path}: holds no image")
            picture = _series(tif, source, path, limit)
            for fault in faults:  # tifffile leaves out pages and tags beyond the file's end, and only logs it
                tag = re.search(r"TiffTag (\d+)", fault)
                if tag is None or int(tag[1]) < _PRIVATE:
                    raise InputError(f"{path}: is damaged or cut short: {fault}")
            yield picture
    finally:
        log.removeFilter(note)


def _series(tif: Any, source: Path, path: str, limit: int) -> Picture:
    series, page, end = tif.series[0], tif.series[0].keyframe, source.stat().st_size
    axes, shape = series.get_axes(False), series.get_shape(False)
    kept = [place for place, axis in enumerate(axes) if shape[place] > 1 or axis in "YX"]
    order = "".join(axes[place] for place in kept)
    if order not in ("YX", "YXS", "SYX", "CYX"):
        sizes = ", ".join(f"{axis} {extent}" for axis, extent in zip(axes, shape, strict=True))
        raise InputError(
            f"{path}: its axes are {sizes}; expected Y and X, S or C for channels, and else axes of one pixel"
        )
    dtype = _check_pixels(path, series)
    offset, segment, missing = None if series.transform else series.dataoffset, 0, 0
    tiles: Any = None
    if offset is None:
        segment, missing = _check_segments(path, series, end, limit)
        tiles = zarr.open_array(series.aszarr(level=0, squeeze=False), mode="r")
    elif offset + math.prod(shape) * series.dtype.itemsize > end:
        raise InputError(f"{path}: is cut short: it ends at {end} bytes, before its last pixel")
    flights = max(1, min(10, limit // 4 // max(segment, 1)))  # strips or tiles that zarr decodes at once

    def read(block: Block) -> NDArray[Any]:
        places = dict(zip("CYXS", (*block, block[0]), strict=True))
        index = tuple(places[axis] if place in kept else 0 for place, axis in enumerate(axes))
        if tiles is None:
            # Mapped anew each time: pages once read stay in memory until they are unmapped.
            mapped: Any = np.memmap(source, stored, "r", offset or 0, shape)
            values = np.array(mapped[index])
        else:
            with zarr.config.set({"async.concurrency": flights}):
                values = np.asarray(tiles[index])
        if values.ndim == 2:
            values = values[None]
        return (np.moveaxis(values, 2, 0) if order == "YXS" else values).astype(dtype, copy=False)

    stored = series.dtype.newbyteorder(tif.byteorder)
    bands = math.prod(shape[place] for place in kept if axes[place] in "CS")
    scale, unit, labels = _described(tif, series)
    photometric = tifffile.PHOTOMETRIC
    coloured = "S" in order and bands >= 3 and page.photometric in (photometric.RGB, photometric.YCBCR)
    alpha = bool(page.extrasamples) and page.extrasamples[0] > 0
    return Picture(
        channels=labels if len(labels) == bands else _names(bands, colour=coloured, alpha=alpha),
        extents=(shape[axes.index("Y")], shape[axes.index("X")]),
        dtype=dtype,
        read=read,
        planar=order in ("SYX", "CYX"),
        tall=1 if tiles is None else page.tilelength if page.is_tiled else page.rowsperstrip,
        scale=scale,
        unit=unit,
        missing=missing,
    )


def _check_pixels(path: str, series: Any) -> str:
    page, photometric = series.keyframe, tifffile.PHOTOMETRIC
    if page.photometric == photometric.PALETTE:
        raise InputError(f"{path}: its pixels are numbers into a palette; convert it to RGB")
    if page.photometric == photometric.YCBCR and page.compression not in _JPEGS:
        raise InputError(f"{path}: its pixels are YCbCr and not JPEG; convert it to RGB")
    if series.dtype is None:
        raise InputError(f"{path}: its pixels are of a type that cannot be read ({page.bitspersample} bits)")
    try:
        return stored_dtype(series.dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_segments(path: str, series: Any, end: int, limit: int) -> tuple[int, int]:
    """Return the bytes of a decoded strip or tile and how many are left out, before any is decoded."""
    page = series.keyframe
    segment, count = math.prod(page.chunks) * series.dtype.itemsize, math.prod(page.chunked)
    if 2 * segment > limit:
        raise InputError(
            f"{path}: has strips or tiles of {size(segment)}; decoding one takes about {size(2 * segment)}, "
            f"more than the memory of {size(limit)}; allow more (--memory), or save it with small tiles"
        )
    if len(series.pages) * page.size != math.prod(series.shape):
        raise InputError(f"{path}: is cut short, or parts of it are in other files")
    missing = 0
    for frame in series.pages:
        if frame is None or len(frame.dataoffsets) < count or len(frame.databytecounts) < count:
            raise InputError(f"{path}: is damaged: it lists fewer strips or tiles than the {count} it needs")
        for offset, taken in zip(frame.dataoffsets, frame.databytecounts, strict=False):
            if offset + taken > end:
                raise InputError(f"{path}: is cut short: it ends at {end} bytes, before its last pixel")
            # No codec makes pixels that much larger, so this is another image, and perhaps a bomb.
            if (offset == 0) != (taken == 0) or taken > 2 * segment + 2**16:
                raise InputError(f"{path}: is damaged: a strip or tile has {taken} bytes at {offset}")
            missing += not taken
    if missing == count * len(series.pages):
        raise InputError(f"{path}: holds no pixels; whatever wrote it was perhaps interrupted")
    return segment, missing


def _described(tif: Any, series: Any) -> tuple[tuple[float, float], str | None, tuple[str, ...]]:
    """Return the size of a pixel (y, x), its unit and the channels' names, where the file says so plainly."""
    page = series.keyframe
    found: tuple[Any, Any, str | None] = (None, None, None)
    labels: tuple[str, ...] = ()
    with suppress(Exception):  # a description that cannot be read is none; the pixels do not depend on it
        if series.kind == "ome":
            root = ET.fromstring(tif.ome_metadata)  # noqa: S314 - tifffile has parsed the same text
            pixels = root.find("{*}Image/{*}Pixels")
            if pixels is not None:
                names = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
                labels = tuple(name for name in names if name)
                units = {pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"}
                found = (
                    pixels.get("PhysicalSizeY"),
                    pixels.get("PhysicalSizeX"),
                    _UNITS.get(units.pop()) if len(units) == 1 else None,
                )
        elif page.resolutionunit == tifffile.RESUNIT.CENTIMETER:  # inches mostly are a printer's, or made up
            found = (1e4 / page.resolution[1], 1e4 / page.resolution[0], "micrometer")
        scale = float(found[0]), float(found[1])
        if found[2] and all(math.isfinite(s) and s > 0 for s in scale):
            return scale, found[2], labels
    return (1.0, 1.0), None, labels
