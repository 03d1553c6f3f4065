"""Where a GeoTIFF lies: its affine transform and coordinate reference system, through rasterio (the extra ``geo``)."""

import warnings
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.storage.geo import KEY, placed

_TAGS = (34735, 33550, 34264)
"""GeoKeyDirectory, ModelPixelScale, ModelTransformation: one of them makes a TIFF a GeoTIFF."""
_NODATA = 42113
_UNITS = {"metre": "meter", "meter": "meter", "foot": "foot", "kilometre": "kilometer"}


@dataclass(frozen=True)
class Located:
    """Scale, translation and units by axis, the attributes to keep, the bands' names, and what to tell the user.

    The name of a band that has none is empty.
    """

    scale: dict[str, float] = field(default_factory=dict)
    translation: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def located(tif: Any, source: Path, path: str) -> Located:
    """Return where a TIFF lies; nothing where it is no GeoTIFF or its tags cannot be read, which is said in a note."""
    if not any(tag in tif.pages.first.tags for tag in _TAGS):
        return Located()
    if find_spec("rasterio") is None:
        return Located(
            notes=(f"{path}: its place on Earth is left out; to keep it, pip install 'haloflow[geo]', ingest again",)
        )
    rasterio: Any = import_module("rasterio")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files without a transform, which is said below
            with rasterio.open(source, driver="GTiff") as file:
                affine, crs, bands = tuple(file.transform)[:6], file.crs, file.descriptions
    except Exception as error:  # noqa: BLE001 - whatever damaged tags make GDAL raise; no pixel depends on them
        return Located(notes=(f"{path}: its place on Earth cannot be read and is left out: {error}",))
    channels = tuple(name or "" for name in bands) if any(bands) else ()
    if crs is None or affine == (1, 0, 0, 0, 1, 0):
        return Located(
            channels=channels, notes=(f"{path}: names no coordinate system or no place in one, so none is kept",)
        )
    attributes = {KEY: {"crs": crs.to_string(), "affine": list(affine)}}
    where = placed(affine)
    if where is None:
        return Located(
            attributes=attributes,
            channels=channels,
            notes=(
                f"{path}: its grid is rotated, sheared or mirrored, so its coordinates are pixels; the transform is "
                f"kept in the attribute {KEY!r}; to have coordinates, warp it to a grid that is north up (gdalwarp)",
            ),
        )
    scale, translation, _ = where
    unit = None if crs.is_geographic else _UNITS.get(str(crs.linear_units))
    return Located(
        scale=dict(zip("yx", scale, strict=True)),
        translation=dict(zip("yx", translation, strict=True)),
        units=dict.fromkeys("yx", unit) if unit else {},  # OME-Zarr has no degrees
        attributes=attributes,
        channels=channels,
    )


def nodata_of(page: Any, dtype: str) -> np.generic | None:
    """Return the pixel that stands for no data; None where no pixel does, or NaN, which is none anywhere.

    GDAL writes the number as text, which need not be what the type has: of float32 -3.4e38 is what is near it.
    """
    kind = np.dtype(dtype)
    try:
        text = str(page.tags[_NODATA].value).partition("\0")[0]
        if kind.kind in "iu":
            pixel: Any = kind.type(_whole(text))
        else:
            with np.errstate(over="raise"):
                pixel = kind.type(float(text))
    except (KeyError, ValueError, OverflowError, FloatingPointError):
        return None
    known: np.generic | None = None if kind.kind not in "iuf" or np.isnan(pixel) else pixel
    return known


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} is not whole")
    return int(number)
