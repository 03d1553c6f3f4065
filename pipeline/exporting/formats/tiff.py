"""Tiled TIFF, written tile by tile: OME-TIFF with sizes and names, or GeoTIFF where the image lies on Earth."""

import io
import json
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
from pipeline.pictures.base import PIXEL, TIMES, UNITS
from pipeline.storage.geo import KEY
from pipeline.storage.source import Outer, Source

_TILE = 256
_BIG = 2**32 - 2**25
"""Bytes from which on a TIFF has to be a BigTIFF."""
_OME = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
_SIGNS = {name: sign for sign, name in UNITS.items()}
_TIMES = {name: sign for sign, name in TIMES.items()}
_KINDS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}
"""The tags that make a TIFF a GeoTIFF, and the types of their values."""
_METADATA = 42112
"""GDAL's tag of what it knows of bands, as XML."""


def _write(selection: Selection, out: Path) -> tuple[str, ...]:
    source = selection.source
    notes: tuple[str, ...] = ()
    tags = _located(selection) if source.geo else []
    if source.geo and not tags:
        notes = ("its place on Earth is left out; to keep it, pip install 'haloflow[geo]'",)
    colours = source.channels == ("red", "green", "blue") and source.dtype in ("uint8", "uint16")
    flat = math.prod(selection.shape[:3]) == len(source.channels)  # one plane of each channel
    told: dict[str, Any]
    if flat and (colours or tags):
        several = len(source.channels) > 1
        told = {"shape": (len(source.channels), *source.extents), "planarconfig": "separate" if several else None}
        described = None if tags else {**_described(selection), "axes": "SYX", "Channel": {}}
        told |= {"photometric": "rgb" if colours else "minisblack", "metadata": described}
    else:
        told = {"shape": selection.shape, "photometric": "minisblack", "metadata": _described(selection)}
    if told["metadata"] is not None and (unsaid := _unsaid(source)):
        notes += (f"sizes and places of pixels are left out, for OME-TIFF has no words for them: {', '.join(unsaid)}",)
    ome = told["metadata"] is not None and source.dtype in _OME
    if told["metadata"] is not None and not ome:
        # In tifffile's own words, but not by it: it would take an image one pixel wide for a row.
        words = json.dumps({"shape": told["shape"], **told["metadata"]})
        told |= {"description": words, "metadata": None}
    with tifffile.TiffWriter(out, bigtiff=selection.bytes > _BIG, ome=ome) as file:
        file.write(
            _tiles(selection),
            dtype=selection.dtype,
            tile=(_TILE, _TILE),
            compression="zlib",
            extratags=tags,
            software="haloflow",
            **told,
            **_resolution(source),
        )
    return notes


def _tiles(selection: Selection) -> Iterator[NDArray[Any]]:
    """Give the tiles of each plane, row by row, filled up with zeros at the edges."""
    height, width = selection.source.extents
    step = selection.band(_TILE)
    for place in np.ndindex(selection.shape[:3]):
        for top in range(0, height, step):
            band = selection.read(place, Interval(top, min(top + step, height)))
            for y in range(0, len(band), _TILE):
                for x in range(0, width, _TILE):
                    tile = np.zeros((_TILE, _TILE), selection.dtype)
                    part = band[y : y + _TILE, x : x + _TILE]
                    tile[: part.shape[0], : part.shape[1]] = part
                    yield tile


def _resolution(source: Source) -> dict[str, Any]:
    """Return what the tags of resolution say: pixels a centimetre along (x, y)."""
    if source.units != ("micrometer", "micrometer"):
        return {}
    if not all(1e-5 < size < 1e9 for size in source.scale):
        return {}  # the tag is a ratio of two 32-bit integers
    y, x = (1e4 / size for size in source.scale)
    return {"resolution": (x, y), "resolutionunit": tifffile.RESUNIT.CENTIMETER}


def _described(selection: Selection) -> dict[str, Any]:
    """Return what OME-XML says: axes, channels, and along each axis the size of a pixel and the place of each plane."""
    source = selection.source
    told: dict[str, Any] = {"axes": "TCZYX", "Channel": {"Name": list(source.channels)}}
    planes = list(np.ndindex(selection.shape[:3]))
    at = {"t": [place[0] for place in planes], "z": [place[2] for place in planes]}
    placed: dict[str, Any] = {}
    for axis in _axes(source):
        unit, name = _unit(axis), axis.name.upper()
        if unit is None:
            continue
        size, place = ("TimeIncrement", "DeltaT") if name == "T" else (f"PhysicalSize{name}", f"Position{name}")
        told |= {size: axis.scale, f"{size}Unit": unit}
        if axis.translation:
            numbers = [axis.translation + axis.scale * n for n in at.get(axis.name, [0] * len(planes))]
            placed |= {place: numbers, f"{place}Unit": [unit] * len(planes)}
    return told | ({"Plane": placed} if placed else {})


def _axes(source: Source) -> tuple[Outer, ...]:
    """Return the axes along which pixels have sizes."""
    return (*source.outer, *(Outer(n, 1, 0, *where) for n, where in zip("yx", _plane(source), strict=True)))


def _unit(axis: Outer) -> str | None:
    """Return OME's sign of an axis's unit, also where the image has that sign; None where OME has no words for it."""
    signs, known = (_TIMES, TIMES) if axis.name == "t" else (_SIGNS, UNITS)
    if axis.scale <= 0:  # OME has no mirrored axes
        return None
    if axis.unit is None:
        return PIXEL if axis.name != "t" and (axis.scale, axis.translation) != (1.0, 0.0) else None
    return axis.unit if axis.unit in known else signs.get(axis.unit)


def _unsaid(source: Source) -> list[str]:
    """Return the axes that OME has no words for, with the sizes of their pixels."""
    return [
        f"{axis.name} {axis.scale:g} {axis.unit or ''}".rstrip()
        for axis in _axes(source)
        if _unit(axis) is None and (axis.unit, axis.scale, axis.translation) != (None, 1.0, 0.0)
    ]


def _plane(source: Source) -> list[tuple[float, float, str | None]]:
    """Return for y and x the size of a pixel, the place of the first one's centre, and in what."""
    return list(zip(source.scale, source.translation, source.units, strict=True))


def _located(selection: Selection) -> list[tuple[Any, ...]]:
    """Return the tags that make a TIFF a GeoTIFF; none where rasterio is not installed."""
    if selection.source.geo is None or find_spec("rasterio") is None:
        return []
    rasterio: Any = import_module("rasterio")
    told = selection.source.geo.attributes(selection.source.scale, selection.source.translation)[KEY]
    # GDAL writes the tags of a file of one pixel that lies where ours does; they are the same for any extent.
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=1,
            height=1,
            count=1,
            dtype="uint8",
            crs=told["crs"],
            transform=rasterio.Affine(*told["affine"]),
        ) as file:
            file.write(np.zeros((1, 1, 1), np.uint8))
        with tifffile.TiffFile(io.BytesIO(memory.read())) as tif:
            found = [tag for tag in tif.pages.first.tags if tag.code in _KINDS]
            tags = [(tag.code, _KINDS[tag.code], _count(tag.value), tag.value, True) for tag in found]
    return [*tags, (_METADATA, "s", 0, _band_names(selection), True)]


def _band_names(selection: Selection) -> str:
    """Return the channels' names as GDAL has them, in XML of its own in a tag of its own."""
    root = ET.Element("GDALMetadata")
    for place, name in enumerate(selection.source.channels):
        ET.SubElement(root, "Item", name="DESCRIPTION", sample=str(place), role="description").text = name
    return ET.tostring(root).decode()  # in ASCII, as tags must be: other letters by their numbers


def _count(value: Any) -> int:
    """Return how many numbers a tag has; 0 for text, of which tifffile counts the letters."""
    return 0 if isinstance(value, str) else len(value) if isinstance(value, tuple) else 1


WRITER = Writer((".tif", ".tiff"), _write)
