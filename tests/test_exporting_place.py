"""What is exported lies where it lay: in OME's own words, and when it is ingested again."""

from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
import zarr

import pipeline
from pipeline.exporting.export import export
from pipeline.ingesting.ingest import ingest
from pipeline.storage.images import open_image
from pipeline.storage.metadata import Placed, Window, describe
from tests.ingested import noise

UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
SCALE = {"t": 0.5, "z": 2.0, "y": 0.25, "x": 0.3}
FIRST = {"t": 3.0, "z": -8.0, "y": 100.125, "x": -200.0}


def write(path, axes, values, units=UNITS, channels=None) -> str:
    told = [(axis, units.get(axis)) for axis in axes]
    level = Placed("0", tuple(SCALE.get(a, 1.0) for a in axes), tuple(FIRST.get(a, 0.0) for a in axes))
    names = channels or [f"c{n}" for n in range(values.shape[axes.index("c")])]
    group = zarr.create_group(path, attributes=describe("a", told, [level], names, [Window.of(0, 1)] * len(names)))
    group.create_array("0", shape=values.shape, chunks=values.shape, dtype=values.dtype)[:] = values
    return str(path)


def planes(path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return what OME-XML says of all pixels and of each plane."""
    with tifffile.TiffFile(path) as tif:
        pixels = ET.fromstring(tif.ome_metadata).find("{*}Image/{*}Pixels")  # noqa: S314 - of our own making
    assert pixels is not None
    return pixels.attrib, [plane.attrib for plane in pixels.findall("{*}Plane")]


def placed(path) -> dict[str, tuple[Any, ...]]:
    source = open_image(str(path))
    found = {axis.name: (axis.scale, axis.translation, axis.unit) for axis in source.outer}
    return found | dict(zip("yx", zip(source.scale, source.translation, source.units, strict=True), strict=True))


def test_ome_says_where_every_plane_of_a_region_lies(tmp_path):
    values = noise(2, 2, 3, 40, 50)
    image = write(tmp_path / "a.zarr", "tczyx", values)
    export(image, tmp_path / "b.tif", region=((8, 30), (10, 41)))
    told, found = planes(tmp_path / "b.tif")
    assert (told["PhysicalSizeX"], told["PhysicalSizeXUnit"]) == ("0.3", "µm")
    assert (told["TimeIncrement"], told["TimeIncrementUnit"]) == ("0.5", "s")
    assert len(found) == 12
    for plane in found:
        assert float(plane["PositionX"]) == pytest.approx(-200 + 10 * 0.3)
        assert float(plane["PositionY"]) == pytest.approx(100.125 + 8 * 0.25)
        assert float(plane["PositionZ"]) == -8 + 2 * int(plane["TheZ"])
        assert float(plane["DeltaT"]) == 3 + 0.5 * int(plane["TheT"])
        assert {plane[f"Position{axis}Unit"] for axis in "XYZ"} == {"µm"}
        assert plane["DeltaTUnit"] == "s"
    export(image, tmp_path / "c.tif", t=1, z=2)
    assert {(p["PositionZ"], p["DeltaT"]) for p in planes(tmp_path / "c.tif")[1]} == {("-4.0", "3.5")}
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    again = placed(tmp_path / "b.zarr")
    for axis, start in (("t", 0), ("z", 0), ("y", 8), ("x", 10)):
        assert again[axis] == (SCALE[axis], pytest.approx(FIRST[axis] + start * SCALE[axis], abs=1e-12), UNITS[axis])
    export(str(tmp_path / "b.zarr"), tmp_path / "d.tif")
    assert planes(tmp_path / "d.tif") == planes(tmp_path / "b.tif")


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("units", [UNITS, {}], ids=["micrometres", "pixels"])
def test_a_map_comes_back_where_it_lay(tmp_path, units, dtype):
    image = write(tmp_path / "a.zarr", "cyx", noise(1, 60, 70), units)
    job = pipeline.load(
        {
            "input": {"images": image, "region": {"y": [10, 50]}},
            "features": {"edge": {"rows": [[1, -1]] * 3}},
            "layers": [{"type": "convolution", "features": ["edge"]}, {"type": "pool", "window": 2}],
            "output": {"store": str(tmp_path / "maps.zarr"), "dtype": dtype},
        }
    )
    pipeline.run(pipeline.plan(job), cluster="serial")
    made = tmp_path / "maps.zarr" / "a" / "pool"
    export(str(made), tmp_path / "b.tif")
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    assert placed(tmp_path / "b.zarr") == placed(made)
    assert placed(made)["x"][:2] == (0.6, pytest.approx(-200 + 0.3 * (0.5 + 0.5)))


@pytest.mark.parametrize("unit", ["inch", "parsec", "femtometer", "decimeter"])
def test_every_unit_of_ome_comes_back(tmp_path, unit):
    image = write(tmp_path / "a.zarr", "cyx", noise(1, 40, 50), {"y": unit, "x": unit})
    assert export(image, tmp_path / "b.tif").notes == ()
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    assert placed(tmp_path / "b.zarr") == placed(image)


def test_a_place_that_a_tiff_cannot_say_is_told_of(tmp_path):
    image = write(tmp_path / "a.zarr", "cyx", noise(1, 40, 50), {"y": "um", "x": "mm"})
    made = export(image, tmp_path / "b.tif")
    words = "sizes and places of pixels are left out, for OME-TIFF has no words for them: y 0.25 um"
    assert made.notes == (f"{tmp_path / 'b.tif'}: {words}",)
    image = write(tmp_path / "c.zarr", "cyx", noise(1, 40, 50), {"y": "mm", "x": "mm"})  # OME's own sign
    assert export(image, tmp_path / "c.tif").notes == ()
    ingest(tmp_path / "c.tif", tmp_path / "d.zarr")
    assert placed(tmp_path / "d.zarr")["x"] == (SCALE["x"], FIRST["x"], "millimeter")


def test_colours_come_back_where_they_lay(tmp_path):
    values = noise(3, 40, 50)
    image = write(tmp_path / "a.zarr", "cyx", values, channels=["red", "green", "blue"])
    export(image, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    assert open_image(str(tmp_path / "b.zarr")).channels == ("red", "green", "blue")
    assert np.array_equal(zarr.open_array(tmp_path / "b.zarr/0", mode="r")[:], values)
    assert placed(tmp_path / "b.zarr") == placed(image)


def test_what_lies_at_the_origin_in_pixels_needs_no_words(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=noise(1, 40, 50))
    export(str(tmp_path / "a.zarr"), tmp_path / "b.tif")
    told, found = planes(tmp_path / "b.tif")
    assert found == []
    assert not [key for key in told if key.startswith("Physical")]


@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        ({"PositionX": [0.02] * 2, "PositionXUnit": ["mm"] * 2}, 20.0),
        ({"PositionX": [7.5] * 2, "PositionXUnit": ["µm"] * 2}, 7.5),
        ({"PositionX": [7.5] * 2}, 0.0),  # by default in "reference frame", which is no length
        ({"PositionX": [7.5] * 2, "PositionXUnit": ["pixel"] * 2}, 0.0),
        ({"PositionX": [7.5, 9.5], "PositionXUnit": ["µm"] * 2}, 0.0),  # the stage has moved
        ({"PositionX": ["nan"] * 2, "PositionXUnit": ["µm"] * 2}, 0.0),
    ],
)
def test_a_stage_counts_where_it_says_one_place_in_a_unit(tmp_path, plane, expected):
    told = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Plane": plane}
    tifffile.imwrite(tmp_path / "a.tif", noise(2, 20, 30), ome=True, photometric="minisblack", metadata=told)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert placed(tmp_path / "a.zarr")["x"] == (0.5, pytest.approx(expected), "micrometer")
    assert placed(tmp_path / "a.zarr")["y"] == (0.5, 0.0, "micrometer")


@pytest.mark.parametrize("kind", ["uint8", "float16"])
def test_planes_on_earth_keep_their_places_and_their_channels_names(tmp_path, kind):
    pytest.importorskip("rasterio")
    image = write(tmp_path / "a.zarr", "czyx", noise(2, 3, 4, 5).astype(kind), channels=["rot", "grün"])
    affine = [0.3, 0, -200.15, 0, -0.25, -100]
    zarr.open_group(image).attrs["geo"] = {"crs": "EPSG:32633", "affine": affine}
    export(image, tmp_path / "b.tif")
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    again = placed(tmp_path / "b.zarr")
    assert again["z"] == (SCALE["z"], FIRST["z"], UNITS["z"])
    assert open_image(str(tmp_path / "b.zarr")).channels == ("rot", "grün")
    assert zarr.open_group(tmp_path / "b.zarr").attrs["geo"]["crs"] == "EPSG:32633"
