"""What a TIFF says of its pixels' size and its channels' names: OME-XML, ImageJ's description, resolution tags."""

import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import tifffile

from pipeline.pictures.base import TIMES, UNITS

_IMAGEJ = {"micron": "µm", "um": "µm", r"\u00B5m": "µm", "\u03bcm": "µm"}


@dataclass
class Described:
    """Sizes of pixels and their units by axis, and channels' names; what is not said plainly is left out."""

    scale: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    def add(self, axis: str, value: Any, unit: str | None) -> None:
        """Take over a size, if it is one."""
        with suppress(TypeError, ValueError):
            if unit and math.isfinite(float(value)) and float(value) > 0:
                self.scale[axis], self.units[axis] = float(value), unit


def described(tif: Any, series: Any) -> Described:
    """Return what a file says of a series; a description that cannot be read is none: no pixel depends on it."""
    found = Described()
    with suppress(Exception):
        if series.kind == "ome":
            _ome(tif.ome_metadata, found)
        elif series.kind == "imagej":
            _imagej(tif.imagej_metadata, series.keyframe, found)
        else:
            if series.kind == "shaped":
                labels = tif.shaped_metadata[0].get("Channel", {}).get("Name", ())
                found.channels = tuple(map(str, labels))
            # Inches mostly are a printer's, or made up.
            if series.keyframe.resolutionunit == tifffile.RESUNIT.CENTIMETER:
                for axis, number in zip("xy", series.keyframe.resolution, strict=True):
                    found.add(axis, 1e4 / number, "micrometer")
    if len({found.units.get("y"), found.units.get("x")}) > 1:  # a pixel of which one side is known is of no use
        for axis in "yx":
            found.scale.pop(axis, None)
            found.units.pop(axis, None)
    return found


def _ome(text: str, found: Described) -> None:
    root = ET.fromstring(text)  # noqa: S314 - tifffile has parsed the same text
    pixels = root.find("{*}Image/{*}Pixels")
    if pixels is None:
        return
    labels = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    found.channels = tuple(label for label in labels if label)
    for axis in "zyx":
        size = pixels.get(f"PhysicalSize{axis.upper()}")
        found.add(axis, size, UNITS.get(pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm")))
    found.add("t", pixels.get("TimeIncrement"), TIMES.get(pixels.get("TimeIncrementUnit", "s")))


def _imagej(told: dict[str, Any], page: Any, found: Described) -> None:
    written = str(told.get("unit", ""))
    unit = UNITS.get(_IMAGEJ.get(written, written))
    for axis, number in zip("xy", page.resolution, strict=True):  # pixels a unit; the tag's own unit says nothing
        found.add(axis, 1 / number, unit)
    found.add("z", told.get("spacing"), unit)
    found.add("t", told.get("finterval"), TIMES.get(str(told.get("tunit", "s")).removesuffix("ec")))
    labels = [str(label) for label in told.get("Labels", ())]
    if len(labels) == int(told.get("channels", 1)):
        found.channels = tuple(labels)
