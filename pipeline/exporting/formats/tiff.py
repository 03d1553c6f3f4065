"""Tiled TIFF, written tile by tile: OME-TIFF with sizes and names, or GeoTIFF where the image lies on Earth."""

import io
import math
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.exporting.base import Selection, Writer
from pipeline.geometry import Interval
from pipeline.pictures.base import UNITS

_TILE = 256
_BIG = 2**32 - 2**25
"""Bytes from which on a TIFF has to be a BigTIFF."""
_OME = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
_SIGNS = {name: sign for sign, name in UNITS.items()}
_KINDS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}
"""The tags that make a TIFF a GeoTIFF, and the types of their values."""
_METADATA = 42112
"""GDAL's tag of what it knows of bands, as XML."""


def _write(selection: Selection, out: Path) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    tags = _located(selection) if selection.geo else []
    if selection.geo and not tags:
        notes = (f"{out.name}: its place on Earth is left out; to keep it, pip install 'haloflow[geo]'",)
    colours = selection.channels == ("red", "green", "blue") and selection.source.dtype in ("uint8", "uint16")
    ome = not tags and not colours and selection.source.dtype in _OME
    big = selection.dtype.itemsize * math.prod(selection.shape) > _BIG
    with tifffile.TiffWriter(out, bigtiff=big, ome=ome) as file:
        file.write(
            _tiles(selection),
            shape=selection.shape,
            dtype=selection.dtype,
            tile=(_TILE, _TILE),
            compression="zlib",
            photometric="rgb" if colours else "minisblack",
            planarconfig="separate" if colours or (tags and selection.shape[0] > 1) else None,
            metadata=None if tags or colours else _described(selection),
            extratags=tags,
            software="haloflow",
            **_resolution(selection),
        )
    return notes


def _tiles(selection: Selection) -> Iterator[NDArray[Any]]:
    """Give the tiles of each channel, row by row, filled up with zeros at the edges."""
    count, height, width = selection.shape
    step = selection.band(_TILE)
    for channel in range(count):
        for top in range(0, height, step):
            band = selection.read(channel, Interval(top, min(top + step, height)))
            for y in range(0, len(band), _TILE):
                for x in range(0, width, _TILE):
                    tile = np.zeros((_TILE, _TILE), selection.dtype)
                    part = band[y : y + _TILE, x : x + _TILE]
                    tile[: part.shape[0], : part.shape[1]] = part
                    yield tile


def _resolution(selection: Selection) -> dict[str, Any]:
    """Return what the tags of resolution say: pixels a centimetre along (x, y)."""
    if selection.source.units != ("micrometer", "micrometer"):
        return {}
    y, x = (1e4 / size for size in selection.scale)
    return {"resolution": (x, y), "resolutionunit": tifffile.RESUNIT.CENTIMETER}


def _described(selection: Selection) -> dict[str, Any]:
    told: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(selection.channels)}}
    for axis, size, unit in zip("YX", selection.scale, selection.source.units, strict=True):
        if unit in _SIGNS:
            told |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": _SIGNS[unit]}
    return told


def _located(selection: Selection) -> list[tuple[Any, ...]]:
    """Return the tags that make a TIFF a GeoTIFF; none where rasterio is not installed."""
    if selection.geo is None or find_spec("rasterio") is None:
        return []
    rasterio: Any = import_module("rasterio")
    affine = selection.geo.affine(selection.scale, selection.translation)
    # GDAL writes the tags of a file of one pixel that lies where ours does; they are the same for any extent.
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=1,
            height=1,
            count=1,
            dtype="uint8",
            crs=selection.geo.crs,
            transform=rasterio.Affine(*affine),
        ) as file:
            file.write(np.zeros((1, 1, 1), np.uint8))
        with tifffile.TiffFile(io.BytesIO(memory.read())) as tif:
            found = [tag for tag in tif.pages.first.tags if tag.code in _KINDS]
            tags = [(tag.code, _KINDS[tag.code], _count(tag.value), tag.value, True) for tag in found]
    return [*tags, (_METADATA, "s", 0, _band_names(selection), True)]


def _band_names(selection: Selection) -> str:
    """Return the channels' names as GDAL has them, in XML of its own in a tag of its own."""
    root = ET.Element("GDALMetadata")
    for place, name in enumerate(selection.channels):
        ET.SubElement(root, "Item", name="DESCRIPTION", sample=str(place), role="description").text = name
    return ET.tostring(root, "unicode")


def _count(value: Any) -> int:
    """Return how many numbers a tag has; 0 for text, of which tifffile counts the letters."""
    return 0 if isinstance(value, str) else len(value) if isinstance(value, tuple) else 1


WRITER = Writer((".tif", ".tiff"), _write)
