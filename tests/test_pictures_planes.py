"""Planes along t, c and z lie where the file says, with their sizes and names."""

import math

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.image import Image

from pipeline.ingesting.ingest import ingest
from pipeline.storage.images import open_image
from tests.ingested import noise

GREY = {"photometric": "minisblack"}
PLANES = {
    "imagej": ("TZCYX", (2, 3, 2, 31, 37), {"imagej": True}),
    "imagej z": ("ZYX", (3, 31, 37), {"imagej": True, "compression": "zlib"}),
    "ome": ("TCZYX", (2, 3, 4, 31, 37), {"ome": True, **GREY}),
    "ome zct": ("ZCTYX", (2, 3, 4, 31, 37), {"ome": True, "tile": (16, 16), "compression": "zlib", **GREY}),
    "ome rgb": ("CYXS", (2, 31, 37, 3), {"ome": True, "photometric": "rgb", "compression": "zlib"}),
    "ome rgb planar": (
        "TSYX",
        (2, 3, 31, 37),
        {"ome": True, "photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 8, "compression": "lzw"},
    ),
    "shaped": ("TZYX", (2, 3, 31, 37), {"rowsperstrip": 8, **GREY}),
}


@pytest.mark.parametrize("name", PLANES)
def test_planes(tmp_path, name):
    axes, shape, options = PLANES[name]
    values = noise(*shape)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": axes}, **options)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=16)
    Image.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))
    array = zarr.open_array(tmp_path / "a.zarr/0")
    # The oracle: NumPy's transpose to t, c, s, z, y, x, in which a channel's samples are channels of their own.
    expected = values.reshape([shape[axes.index(axis)] if axis in axes else 1 for axis in axes])
    for axis in "TCSZYX":
        if axis not in axes:
            expected, axes = expected[..., None], axes + axis
    expected = expected.transpose([axes.index(axis) for axis in "TCSZYX"])
    t, c, s, z, y, x = expected.shape
    expected = expected.reshape(t, c * s, z, y, x)
    kept = [n for n, axis in enumerate("tczyx") if axis in "cyx" or expected.shape[n] > 1]
    assert array.metadata.dimension_names == tuple("tczyx"[n] for n in kept) == made.axes
    assert array.chunks[-2:] == (16, 16)
    assert np.array_equal(array[:], expected.reshape([expected.shape[n] for n in kept]))


def test_sizes_and_names_of_imagej(tmp_path):
    metadata = {"axes": "ZCYX", "unit": "um", "spacing": 1.5, "Labels": ["DAPI", "GFP"]}
    options = {"imagej": True, "metadata": metadata, "resolution": (4, 2)}
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 2, 31, 37), **options)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert made.channels == ("DAPI", "GFP")
    multiscale = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["ome"]["multiscales"][0]
    scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert dict(zip("czyx", scale, strict=True)) == {"c": 1, "z": 1.5, "y": 0.5, "x": 0.25}
    assert [axis.get("unit") for axis in multiscale["axes"]] == [None, *["micrometer"] * 3]


def test_inches_that_imagej_itself_names_are_sizes(tmp_path):
    """Unlike those of the resolution tags alone, which mostly are a printer's."""
    options = {"imagej": True, "metadata": {"axes": "ZYX", "unit": "inch", "spacing": 0.125}, "resolution": (400, 200)}
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 31, 37), **options)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    source = open_image(str(tmp_path / "a.zarr"))
    assert (source.outer[0].scale, *source.scale) == (0.125, 0.005, 0.0025)
    assert (source.outer[0].unit, *source.units) == ("inch",) * 3


@pytest.mark.parametrize(
    ("sized", "told", "expected"),
    [
        (True, {"xorigin": 10.0, "yorigin": -3.5, "zorigin": 2}, (-3.0, 1.75, -2.5)),
        (True, {"xorigin": 0.5}, (0, 0, -0.125)),
        (True, {"xorigin": "left", "zorigin": math.inf}, (0, 0, 0)),
        (False, {"xorigin": 10.0, "yorigin": -3.5, "zorigin": 2}, (0, 0, 0)),
    ],
)
def test_the_origin_of_imagej_is_the_pixel_that_lies_at_0(tmp_path, sized, told, expected):
    metadata = {"axes": "ZYX", **({"unit": "um", "spacing": 1.5} if sized else {}), **told}
    options = {"imagej": True, "metadata": metadata, "resolution": (4, 2)}
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 31, 37), **options)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    source = open_image(str(tmp_path / "a.zarr"))
    assert (source.outer[0].translation, *source.translation) == expected


def test_steps_in_time_and_depth_of_ome(tmp_path):
    metadata = {
        "axes": "TZYX",
        "PhysicalSizeZ": 2,
        "PhysicalSizeZUnit": "µm",
        "TimeIncrement": 250,
        "TimeIncrementUnit": "ms",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(2, 3, 31, 37), ome=True, metadata=metadata, **GREY)
    ingest(tmp_path / "a.ome.tif", tmp_path / "a.zarr")
    multiscale = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["ome"]["multiscales"][0]
    scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == [250, 1, 2, 1, 1]
    assert [axis.get("unit") for axis in multiscale["axes"]] == ["millisecond", None, "micrometer", None, None]


@pytest.mark.parametrize("pages", ["t", "c", "z"])
def test_pages_without_a_name_are_what_the_user_says(tmp_path, pages):
    values = noise(5, 31, 37)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **GREY)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", pages=pages)
    assert made.shape[made.axes.index(pages)] == 5
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr/0")[:].reshape(values.shape), values)


def test_further_images_are_told_of(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        out.write(noise(31, 37), metadata=None)
        out.write(noise(9, 7), metadata=None)
    assert "note: " in str(ingest(tmp_path / "a.tif", tmp_path / "a.zarr"))
