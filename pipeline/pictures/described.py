"""What a TIFF says of its pixels' size and place and its channels' names: OME-XML, ImageJ's words, resolution tags."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import tifffile

from pipeline.pictures.base import PIXEL, TIMES, UNITS
from pipeline.storage.units import base_unit

_SPELT = {"micron": "µm", "um": "µm", r"\u00B5m": "µm", "\u03bcm": "µm", "inch": "in"}
"""What ImageJ and others write for OME's signs: that of µm begins with U+00B5, and some keyboards' with U+03BC."""


@dataclass
class Described:
    """By axis the sizes of pixels, where the first one's centre lies, and units; and channels' names.

    What is not said plainly is left out.
    """

    scale: dict[str, float] = field(default_factory=dict)
    translation: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    def add(self, axis: str, value: Any, unit: str | None) -> None:
        """Take over a size, if it is one; what is counted in pixels has no unit."""
        with suppress(TypeError, ValueError):
            if unit and math.isfinite(float(value)) and float(value) > 0:
                self.scale[axis] = float(value)
                if unit != PIXEL:
                    self.units[axis] = unit

    def put(self, axis: str, value: Any, unit: str | None) -> None:
        """Take over a place along an axis whose size is known, in that one's unit."""
        with suppress(TypeError, ValueError):
            place, mine = float(value), self.units.get(axis, PIXEL)
            if axis not in self.scale or not unit or not math.isfinite(place):
                return
            (given, kind), (wanted, other) = base_unit(unit), base_unit(mine)
            if unit == mine or (kind and kind == other):
                self.translation[axis] = place if unit == mine else _times(place, given / wanted)

    def agree(self) -> None:
        """Say what is known of y and x in one unit, that of y; forget it where only one side of a pixel is known."""
        if self.units.get("y") == self.units.get("x"):
            return
        (y, kind), (x, other) = base_unit(self.units.get("y")), base_unit(self.units.get("x"))
        side = _times(self.scale.get("x", 0.0), x / y) if kind and kind == other else 0.0
        if 0 < side < math.inf:
            self.scale["x"], self.units["x"] = side, self.units["y"]
            if "x" in self.translation:
                self.translation["x"] = _times(self.translation["x"], x / y)
            return
        for known in (self.scale, self.translation, self.units):
            for axis in "yx":
                known.pop(axis, None)


def _times(number: float, factor: float) -> float:
    """Return a number in another unit, without what binary fractions add to powers of ten.

    >>> 1e-6 / 1e-9, _times(1.0, 1e-6 / 1e-9)
    (999.9999999999999, 1000.0)
    """
    return float(f"{number * factor:.15g}")


def described(tif: Any, series: Any) -> Described:
    """Return what a file says of a series; a description that cannot be read is none: no pixel depends on it."""
    found = Described()
    with suppress(Exception):
        if series.kind == "ome":
            _ome(tif.ome_metadata, found)
        elif series.kind == "imagej":
            _imagej(tif.imagej_metadata, series.keyframe, found)
        else:
            # Inches of which nothing but this tag tells mostly are a printer's, or made up.
            if series.keyframe.resolutionunit == tifffile.RESUNIT.CENTIMETER:
                for axis, number in zip("xy", series.keyframe.resolution, strict=True):
                    found.add(axis, 1e4 / number, "micrometer")
            if series.kind == "shaped":
                _shaped(tif.shaped_metadata[0], found)
    found.agree()
    return found


def _ome(text: str, found: Described) -> None:
    root = ET.fromstring(text)  # noqa: S314 - tifffile has parsed the same text
    pixels = root.find("{*}Image/{*}Pixels")
    if pixels is None:
        return
    labels = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    found.channels = tuple(label for label in labels if label)
    # A stage that moves from one plane to the next leaves no one place for all of them.
    planes = [plane.attrib for plane in pixels.findall("{*}Plane")]
    places = {tuple(plane.get(f"Position{axis}") for axis in "XY") for plane in planes}
    first = [p for p in planes if all(p.get(f"The{axis}", "0") == "0" for axis in "TCZ")] if len(places) == 1 else []
    _placed(pixels.attrib, first, found)


def _shaped(told: Mapping[str, Any], found: Described) -> None:
    """Take over OME's words in tifffile's own JSON, which is written where OME-XML has no such type of pixels."""
    found.channels = tuple(map(str, told.get("Channel", {}).get("Name", ())))
    _placed(told, [{key: numbers[0] for key, numbers in told.get("Plane", {}).items()}], found)


def _placed(told: Mapping[str, Any], first: Sequence[Mapping[str, Any]], found: Described) -> None:
    """Take over what OME's attributes say of sizes, and of the place of the first plane, if there is one."""
    signs = {**UNITS, **{spelt: UNITS[sign] for spelt, sign in _SPELT.items()}, PIXEL: PIXEL}
    for axis in "ZYX":
        unit = signs.get(told.get(f"PhysicalSize{axis}Unit", "µm"))
        found.add(axis.lower(), told.get(f"PhysicalSize{axis}"), unit)
        for plane in first:
            found.put(axis.lower(), plane.get(f"Position{axis}"), signs.get(plane.get(f"Position{axis}Unit", "")))
    found.add("t", told.get("TimeIncrement"), TIMES.get(told.get("TimeIncrementUnit", "s")))
    for plane in first:
        found.put("t", plane.get("DeltaT"), TIMES.get(plane.get("DeltaTUnit", "s")))


def _imagej(told: dict[str, Any], page: Any, found: Described) -> None:
    written = {axis: str(told.get(f"{axis}unit", told.get("unit", ""))) for axis in "zyx"}
    units = {axis: UNITS.get(_SPELT.get(word, word)) for axis, word in written.items()}
    for axis, number in zip("xy", page.resolution, strict=True):  # pixels a unit; the tag's own unit says nothing
        found.add(axis, 1 / number, units[axis])
    found.add("z", told.get("spacing"), units["z"])
    found.add("t", told.get("finterval"), TIMES.get(str(told.get("tunit", "s")).removesuffix("ec")))
    labels = [str(label) for label in told.get("Labels", ())]
    if len(labels) == int(told.get("channels", 1)):
        found.channels = tuple(labels)
    for axis, unit in units.items():
        if axis in found.scale and f"{axis}origin" in told:  # in pixels from the first one: where 0 lies
            found.put(axis, (0 - told[f"{axis}origin"]) * found.scale[axis], unit)
