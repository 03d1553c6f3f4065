"""TIFF, BigTIFF, OME-TIFF and GeoTIFF: the first series, at full resolution; a block decodes what it needs."""

import logging
import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.describe import size
from pipeline.errors import InputError
from pipeline.pictures.base import GREY_ALPHA, Block, Format, Opening, Picture, names, reading
from pipeline.pictures.described import described
from pipeline.pictures.earth import located, nodata_of
from pipeline.pixels import stored_dtype

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEGS = (6, 7, 33007, 34892)  # TIFF's numbers for the compressions whose YCbCr tifffile turns into RGB
_PRIVATE = 32768  # the first of TIFF's private tags, on which no pixel depends
_UNNAMED = "IQ"  # tifffile's axes of pages of which the file does not say what they are


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
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
                raise InputError(f"{opening.path}: holds no image")
            picture = _picture(tif, source, opening)
            for fault in faults:  # tifffile leaves out pages and tags beyond the file's end, and only logs it
                tag = re.search(r"TiffTag (\d+)", fault)
                if tag is None or int(tag[1]) < _PRIVATE:
                    raise InputError(f"{opening.path}: is damaged or cut short: {fault}")
            yield picture
    finally:
        log.removeFilter(note)


FORMAT = Format("TIFF", lambda start: start[:4] in _STARTS, _open)


@dataclass(frozen=True)
class _Axes:
    """The axes of a series that matter: their names and extents, S for the samples of a pixel."""

    order: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, series: Any, opening: Opening) -> "_Axes":
        axes, shape = series.get_axes(False), series.get_shape(False)
        kept = [(axis, extent) for axis, extent in zip(axes, shape, strict=True) if extent > 1 or axis in "YX"]
        order = "".join(axis for axis, _ in kept)
        unnamed = [axis for axis in order if axis in _UNNAMED]
        if opening.pages and len(unnamed) == 1 and opening.pages.upper() not in order:
            order = order.replace(unnamed[0], opening.pages.upper())
        if not {*"YX"} <= set(order) <= {*"TCZYXS"} or len(set(order)) < len(order):
            sizes = ", ".join(f"{axis} {extent}" for axis, extent in zip(axes, shape, strict=True))
            hint = "; say with --pages t, c or z what its pages are" if len(unnamed) == 1 else ""
            raise InputError(
                f"{opening.path}: its axes are {sizes}; expected Y, X, and T, C, Z and S (samples), and else axes "
                f"of one pixel{hint}"
            )
        return cls(order, tuple(extent for _, extent in kept))

    def extent(self, axis: str) -> int:
        """Return the pixels along an axis; 1 where there is none."""
        return self.shape[self.order.index(axis)] if axis in self.order else 1


def _picture(tif: Any, source: Path, opening: Opening) -> Picture:
    series, page, path = tif.series[0], tif.series[0].keyframe, opening.path
    axes = _Axes.of(series, opening)
    dtype = _check_pixels(path, series)
    samples, missing, held = axes.extent("S"), 0, 0
    if series.dataoffset is not None and not series.transform:
        if series.dataoffset + math.prod(axes.shape) * series.dtype.itemsize > source.stat().st_size:
            raise InputError(f"{path}: is cut short: it ends at {source.stat().st_size} bytes, before its last pixel")
        stored = series.dtype.newbyteorder(tif.byteorder)
        reader: _Mapped | _Segments = _Mapped(source, stored, series.dataoffset, axes)
        planar = not axes.order.endswith("S")
    else:
        frames = list(series.pages)
        missing = _check_segments(path, series, frames, source.stat().st_size, opening.limit)
        held = 2 * math.prod(page.chunks) * series.dtype.itemsize
        reader = _Segments(tif.filehandle.fileno(), path, page, frames, axes)
        planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE

    def read(block: Block) -> NDArray[Any]:
        return reader.read(block).astype(dtype, copy=False)

    told = described(tif, series)
    where = located(tif, source, path)
    coloured = samples >= 3 and page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    alpha = bool(page.extrasamples) and page.extrasamples[0] > 0
    plain = GREY_ALPHA if alpha and samples == 2 else names(samples, colour=coloured, alpha=alpha)
    bands = axes.extent("C") if axes.extent("C") > 1 else len(plain)
    others = len(tif.series) - 1
    nodata = nodata_of(page, dtype)
    notes = [f"{path}: holds {others} more images, which are left out"] if others else []
    if nodata is not None:
        named = str(nodata).removesuffix(".0")
        notes.append(f"{path}: names {named} as nodata, and it is kept: layers take it for a number like others")
    return Picture(
        channels=_channels(where.channels if len(where.channels) == bands else told.channels, axes, plain),
        extents=(axes.extent("Y"), axes.extent("X")),
        dtype=dtype,
        read=read,
        times=axes.extent("T"),
        depth=axes.extent("Z"),
        deep=1 if planar else samples,
        tall=1 if isinstance(reader, _Mapped) else page.tilelength if page.is_tiled else page.rowsperstrip,
        held=held,
        scale=told.scale | where.scale,
        translation=told.translation | where.translation,
        units={axis: unit for axis, unit in told.units.items() if axis not in where.scale} | where.units,
        attributes=where.attributes,
        missing=missing,
        nodata=None if nodata is None else float(nodata),
        notes=(*notes, *where.notes),
    )


def _channels(told: tuple[str, ...], axes: _Axes, samples: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of all channels, of which each may have several samples; one told without has a plain name."""
    count = axes.extent("C")
    plain = samples
    if count > 1:
        named = _named(told, names(count, colour=False))
        plain = named if len(samples) == 1 else tuple(f"{name} {sample}" for name in named for sample in samples)
    return _named(told, plain)


def _named(told: tuple[str, ...], plain: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names told, if they are of as many, with plain ones for those that are empty."""
    return tuple(a or b for a, b in zip(told, plain, strict=True)) if len(told) == len(plain) else plain


@dataclass(frozen=True)
class _Mapped:
    """A series whose pixels lie in one piece."""

    source: Path
    dtype: Any
    offset: int
    axes: _Axes

    def read(self, block: Block) -> NDArray[Any]:
        """Return the pixels of a block (c, y, x)."""
        samples = self.axes.extent("S")
        first = block.c.start
        taken = slice(0, samples) if self.axes.order.endswith("S") else first % samples
        places = {"T": block.t, "C": first // samples, "Z": block.z, "S": taken, "Y": block.y, "X": block.x}
        # Mapped anew each time: pages once read stay in memory until they are unmapped.
        mapped: Any = np.memmap(self.source, self.dtype, "r", self.offset, self.axes.shape)
        values = np.array(mapped[tuple(places[axis] for axis in self.axes.order)])
        return np.moveaxis(values, 2, 0) if values.ndim == 3 else values[None]


@dataclass(frozen=True)
class _Segments:
    """A series of strips or tiles, of which one is decoded after the other."""

    file: int
    path: str
    page: Any
    frames: list[Any]
    axes: _Axes

    def read(self, block: Block) -> NDArray[Any]:
        """Return the pixels of a block (c, y, x)."""
        page, samples = self.page, self.axes.extent("S")
        planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        inner = samples if planar or page.samplesperpixel > 1 else 1  # samples that lie within a page
        first = block.c.start
        places = {"T": block.t, "C": first // samples, "Z": block.z, "S": first % samples}
        lead = [axis for axis in self.axes.order if axis not in "YX" and not (axis == "S" and inner > 1)]
        number = 0
        for axis in lead:
            number = number * self.axes.extent(axis) + places[axis]
        plane = first % samples if planar else 0
        made = np.empty((block.c.stop - first, block.y.stop - block.y.start, block.x.stop - block.x.start), page.dtype)
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        down, across = -(-page.imagelength // tall), -(-page.imagewidth // wide)
        for row in range(block.y.start // tall, -(-block.y.stop // tall)):
            for column in range(block.x.start // wide, -(-block.x.stop // wide)):
                values = self._decoded(number, (plane * down + row) * across + column)
                top, left = row * tall, column * wide
                y0, x0 = max(block.y.start, top), max(block.x.start, left)
                y1, x1 = min(block.y.stop, top + tall), min(block.x.stop, left + wide)
                part = made[:, y0 - block.y.start : y1 - block.y.start, x0 - block.x.start : x1 - block.x.start]
                if values is None:
                    part[:] = page.nodata
                else:
                    part[:] = np.moveaxis(values[0, y0 - top : y1 - top, x0 - left : x1 - left], 2, 0)
        return made

    def _decoded(self, number: int, index: int) -> Any:
        """Return a strip or tile (depth, y, x, samples); None for one that the file leaves out."""
        frame, page = self.frames[number], self.page
        offset, count = frame.dataoffsets[index], frame.databytecounts[index]
        if not count:
            return None
        told = {} if page.compression not in _JPEGS else {"jpegtables": frame.jpegtables, "jpegheader": page.jpegheader}
        with reading(self.path, f"page {frame.index + 1}, {'tile' if page.is_tiled else 'strip'} {index + 1}"):
            return page.decode(os.pread(self.file, count, offset), index, **told)[0]


def _check_pixels(path: str, series: Any) -> str:
    page, photometric = series.keyframe, tifffile.PHOTOMETRIC
    if page.photometric == photometric.PALETTE:
        raise InputError(f"{path}: its pixels are numbers into a palette; convert it to RGB")
    if page.photometric == photometric.YCBCR and page.compression not in _JPEGS:
        raise InputError(f"{path}: its pixels are YCbCr and not JPEG; convert it to RGB")
    if series.dtype is None:
        raise InputError(f"{path}: its pixels are of a type that cannot be read ({page.bitspersample} bits)")
    if page.compression == tifffile.COMPRESSION.LERC and (series.dtype.kind == "f" or page.samplesperpixel > 1):
        raise InputError(
            f"{path}: is compressed with LERC, whose missing pixels and interleaved bands are not read right; convert "
            "it (gdal_translate -co COMPRESS=ZSTD)"
        )
    try:
        return stored_dtype(series.dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_segments(path: str, series: Any, frames: list[Any], end: int, limit: int) -> int:
    """Return how many strips or tiles are left out, having checked where all lie, before any is decoded."""
    page = series.keyframe
    segment, count = math.prod(page.chunks) * series.dtype.itemsize, math.prod(page.chunked)
    if 2 * segment > limit:
        raise InputError(
            f"{path}: has strips or tiles of {size(segment)}; decoding one takes about {size(2 * segment)}, "
            f"more than the memory of {size(limit)}; allow more (--memory), or save it with small tiles"
        )
    if page.imagedepth > 1 or series.transform:
        raise InputError(f"{path}: has pages that are volumes; save it with a page for each plane")
    if len(frames) * page.size != math.prod(series.shape):
        raise InputError(f"{path}: is cut short, or parts of it are in other files")
    missing = 0
    for number, frame in enumerate(frames, 1):
        if frame is None or len(frame.dataoffsets) < count or len(frame.databytecounts) < count:
            raise InputError(
                f"{path}: page {number}: is damaged: it lists fewer strips or tiles than the {count} it needs"
            )
        for place, (offset, taken) in enumerate(zip(frame.dataoffsets, frame.databytecounts, strict=False), 1):
            if offset + taken > end:
                raise InputError(
                    f"{path}: page {number}, strip or tile {place}: is cut short: it ends at {end} bytes, before its "
                    "last pixel"
                )
            # No codec makes pixels that much larger, so this is another image, and perhaps a bomb.
            if (offset == 0) != (taken == 0) or taken > 2 * segment + 2**16:
                raise InputError(
                    f"{path}: page {number}: is damaged: strip or tile {place} has {taken} bytes at {offset}"
                )
            missing += not taken
    if missing == count * len(frames):
        raise InputError(f"{path}: holds no pixels; whatever wrote it was perhaps interrupted")
    return missing
