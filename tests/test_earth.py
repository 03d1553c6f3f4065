"""An image of the Earth stays where it is: from a GeoTIFF through maps to a GeoTIFF, as rasterio sees both."""

import json
import math

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.exporting.export import export
from pipeline.ingesting.ingest import ingest
from pipeline.pictures import earth
from pipeline.storage.geo import Geo, placed
from pipeline.storage.images import open_image
from tests.ingested import noise

rasterio = pytest.importorskip("rasterio")

GRIDS = {
    "utm": ("EPSG:32633", (20.0, 0, 420_000.0, 0, -20.0, 4_520_000.0)),
    "degrees": ("EPSG:4326", (0.25, 0, -10.5, 0, -0.125, 60.0)),
    "rows run north": ("EPSG:3857", (30.0, 0, 1e6, 0, 15.0, -2e6)),
}
OBLIQUE = {
    "rotated": ("EPSG:32633", (16.0, 12.0, 420_000.0, 12.0, -16.0, 4_520_000.0)),
    "sheared": ("EPSG:3857", (30.0, 7.5, 1e6, 0.0, -15.0, -2e6)),
    "mirrored": ("EPSG:4326", (-0.25, 0.0, 10.5, 0.0, -0.125, 60.0)),
}
"""Grids that do not run along the world's axes."""


def write(path, values, crs, affine):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        crs=crs,
        transform=rasterio.Affine(*affine),
    ) as file:
        file.write(values)
        file.descriptions = [f"band <{n}>" for n in range(len(values))]


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("-9999", "float32", -9999.0),
        ("-9999", "float16", -10000.0),
        ("-3.4e38", "float32", float(np.float32(-3.4e38))),
        ("-9999\0junk", "int16", -9999),
        ("4294967295", "uint32", 2**32 - 1),
        ("18446744073709551615", "uint64", 2**64 - 1),
        ("-32768.0", "int16", -32768),
        *((text, "uint16", None) for text in ("-9999", "65536", "255.5", "inf", "1e400", "", "none", "nan")),
        *((text, "float32", None) for text in ("nan", "1e39", "", "9 9")),
        ("1", "bool", None),
    ],
)
def test_nodata_is_a_pixel_or_none(text, dtype, expected):
    tag = type("Tag", (), {"value": text})
    page = type("Page", (), {"tags": {42113: tag}})
    assert earth.nodata_of(page, dtype) == expected
    page.tags = {}
    assert earth.nodata_of(page, dtype) is None


@pytest.mark.parametrize("number", [-3.4e38, -9999.0])
def test_nodata_is_told_and_is_nothing_to_look_at(tmp_path, number):
    crs, affine = GRIDS["utm"]
    values = np.random.default_rng(5).uniform(2, 3, (1, 90, 80)).astype(np.float32)
    values[0, 10:30] = number
    write(tmp_path / "a.tif", values, crs, affine)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.nodata = float(np.float32(number))
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=32)
    (note,) = made.notes
    assert f"names {'-3.4e+38' if number < -1e9 else -9999} as nodata, and it is kept" in note
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert np.array_equal(group["0"][:], values)
    window = group.attrs["ome"]["omero"]["channels"][0]["window"]
    known = values[values != np.float32(number)]
    assert (window["start"], window["end"]) == (known.min(), known.max())


@pytest.mark.parametrize("grid", GRIDS)
def test_there_and_back(tmp_path, grid):
    crs, affine = GRIDS[grid]
    values = noise(2, 301, 403, dtype="uint16")
    write(tmp_path / "a.tif", values, crs, affine)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=100)
    assert made.notes == ()
    attributes = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs
    assert attributes["geo"] == {"crs": crs, "affine": list(affine)}
    source = open_image(str(tmp_path / "a.zarr"))
    assert min(source.scale) > 0
    assert source.channels == ("band <0>", "band <1>")
    assert source.units == ((None, None) if grid == "degrees" else ("meter", "meter"))
    export(str(tmp_path / "a.zarr"), tmp_path / "b.tif")
    export(str(tmp_path / "a.zarr"), tmp_path / "c.tif", region=((17, 101), (33, 300)), channels=[1])
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert (a.crs, a.bounds, a.shape, a.count) == (b.crs, b.bounds, b.shape, b.count)
        assert a.transform.almost_equals(b.transform, 1e-9)
        assert a.descriptions == b.descriptions
        assert np.array_equal(a.read(), b.read())
        with rasterio.open(tmp_path / "c.tif") as c:
            assert np.allclose(c.xy(0, 0), a.xy(17, 33), rtol=1e-12)
            assert np.allclose(c.xy(83, 266), a.xy(100, 299), rtol=1e-12)
            assert np.array_equal(c.read(1), values[1, 17:101, 33:300])


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("grid", OBLIQUE)
def test_an_oblique_grid_there_and_back(tmp_path, grid, sized):
    write(tmp_path / "a.tif", noise(2, 31, 43), *OBLIQUE[grid])
    if sized:  # its coordinates are then neither the world's nor pixels
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            file.update_tags(TIFFTAG_XRESOLUTION=2000, TIFFTAG_YRESOLUTION=4000, TIFFTAG_RESOLUTIONUNIT=3)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert open_image(str(tmp_path / "a.zarr")).scale == ((2.5, 5.0) if sized else (1.0, 1.0))
    assert export(str(tmp_path / "a.zarr"), tmp_path / "b.tif").notes == ()
    export(str(tmp_path / "a.zarr"), tmp_path / "c.tif", region=((17, 21), (33, 40)))
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert a.crs == b.crs
        assert a.transform.almost_equals(b.transform, 1e-8)
        with rasterio.open(tmp_path / "c.tif") as c:
            assert np.allclose(c.xy(0, 0), a.xy(17, 33), rtol=1e-12)
            assert np.allclose(c.xy(3, 6), a.xy(20, 39), rtol=1e-12)


def test_peaks_on_an_oblique_grid_are_of_no_reference_system(tmp_path):
    values = np.zeros((1, 50, 60), "uint8")
    values[0, 20, 30] = 255
    write(tmp_path / "a.tif", values, *OBLIQUE["rotated"])
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    job = pipeline.load(
        {
            "input": {"images": str(tmp_path / "a.zarr")},
            "features": {"spot": {"rows": [[0, 0, 0], [0, 1, 0], [0, 0, 0]]}},
            "layers": [{"type": "convolution", "name": "spots", "features": ["spot"], "match": "sum"}],
            "output": {
                "store": str(tmp_path / "maps.zarr"),
                "layers": [],
                "detections": {"layer": "spots", "threshold": 0.5, "distance": 2, "format": "geojson"},
            },
        }
    )
    assert pipeline.run(pipeline.plan(job), "serial").complete
    told = json.loads((tmp_path / "maps.zarr/_haloflow/tables/detections.geojson").read_text())
    assert "crs" not in told
    assert [feature["geometry"]["coordinates"] for feature in told["features"]] == [[30, 20]]
    assert pipeline.verify(job).tables == ()


@pytest.mark.parametrize(
    ("photometric", "named", "expected"),
    [
        ("minisblack", ["", "near infrared", "", ""], ("0", "near infrared", "2", "3")),
        ("rgb", ["", "", "", "mask"], ("red", "green", "blue", "mask")),
        ("minisblack", ["", "", "", ""], ("0", "1", "2", "3")),
    ],
)
def test_bands_without_a_name_take_none_from_the_others(tmp_path, photometric, named, expected):
    profile = {"driver": "GTiff", "count": 4, "height": 20, "width": 30, "dtype": "uint8", "crs": "EPSG:32633"}
    transform = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)
    with rasterio.open(tmp_path / "a.tif", "w", transform=transform, photometric=photometric, **profile) as file:
        file.write(noise(4, 20, 30))
        for band, name in enumerate(named, 1):
            if name:
                file.set_band_description(band, name)
    assert ingest(tmp_path / "a.tif", tmp_path / "a.zarr").channels == expected


LAYERS = """
  - {type: convolution, name: same, features: [spot], match: sum, padding: same}
  - {type: pool, name: pooled, window: 3, stride: 2}
  - {type: convolution, name: valid, features: [even], match: sum, dilation: 2}
  - {type: pool, name: top, window: 2, stride: 2}
"""


@pytest.mark.parametrize("grid", [*GRIDS, *OBLIQUE])
def test_a_dot_stays_in_its_place(tmp_path, grid):
    crs, affine = {**GRIDS, **OBLIQUE}[grid]
    rng = np.random.default_rng(len(grid))
    values = np.zeros((1, 150, 170), "uint8")
    row, column = (int(n) for n in rng.integers(30, 120, 2))
    values[0, row, column] = 255
    write(tmp_path / "a.tif", values, crs, affine)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=50)
    (tmp_path / "job.yaml").write_text(
        f"input: {{images: {tmp_path}/a.zarr}}\n"
        "features: {spot: {rows: [[0, 0, 0], [0, 1, 0], [0, 0, 0]]}, even: {rows: [[1, 1], [1, 1]]}}\n"
        f"layers:{LAYERS}"
        f"output: {{store: {tmp_path}/maps.zarr, layers: [same, pooled, valid, top], pyramid: max}}\n"
    )
    assert pipeline.run(pipeline.plan(pipeline.load(str(tmp_path / "job.yaml")), kernel="numpy"), "serial").complete
    with rasterio.open(tmp_path / "a.tif") as file:
        dot = np.array(file.xy(row, column))
    for layer in ("same", "pooled", "valid", "top"):
        export(f"{tmp_path}/maps.zarr/a/{layer}", tmp_path / f"{layer}.tif")
        with rasterio.open(tmp_path / f"{layer}.tif") as file:
            found = file.read(1)
            rows, columns = np.nonzero(found == found.max())  # of an even feature or a pool, several share the greatest
            assert file.crs == rasterio.CRS.from_string(crs)
            a, b, c, d, e, f = tuple(file.transform)[:6]
            place = np.linalg.solve([[a, b], [d, e]], dot - (c, f)) - 0.5  # of the dot in pixels of the map
            assert np.all(np.abs(place - (columns.mean(), rows.mean())) <= 0.5 + 1e-6), layer


@given(
    a=st.floats(1e-3, 1e4),
    e=st.floats(1e-3, 1e4),
    c=st.floats(-1e6, 1e6),
    f=st.floats(-1e7, 1e7),
    north=st.booleans(),
)
@settings(max_examples=50)
def test_the_affine_comes_back(a, e, c, f, north):
    affine = (a, 0, c, 0, e if north else -e, f)
    scale, translation, flipped = placed(affine)
    assert min(scale) > 0
    assert np.allclose(Geo("EPSG:3857", flipped).affine(scale, translation), affine, rtol=1e-9, atol=1e-6)
    y = affine[5] + affine[4] / 2  # of the first pixel's centre
    assert np.allclose(translation, (-y if flipped else y, c + a / 2))


def test_what_cannot_be_kept_is_told(tmp_path, monkeypatch):
    values = noise(1, 20, 30)
    rotated = (10.0, 2.0, 5e5, 2.0, -10.0, 5e6)
    write(tmp_path / "a.tif", values, "EPSG:32633", rotated)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert "note: " in str(made)
    assert "rotated" in made.notes[0]
    assert zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["geo"]["affine"] == list(rotated)
    source = open_image(str(tmp_path / "a.zarr"))
    assert (source.scale, source.translation) == ((1, 1), (0, 0))
    zarr.open_group(tmp_path / "a.zarr").attrs["geo"] = {"crs": "EPSG:32633", "affine": [1, 2, 0, 2, 4, 0]}
    for name, told in (("a.tif", 1), ("a.npy", 0)):
        notes = export(str(tmp_path / "a.zarr"), tmp_path / f"out.{name}").notes
        assert sum("place on Earth is left out" in note and "cannot be used" in note for note in notes) == told
    write(tmp_path / "b.tif", values, None, (1.5, 0, 7, 0, -1.5, 9))
    made = ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    assert ("no coordinate system" in made.notes[0], made.channels) == (True, ("band <0>",))
    monkeypatch.setattr(earth, "find_spec", lambda _: None)
    assert "haloflow[geo]" in ingest(tmp_path / "a.tif", tmp_path / "c.zarr").notes[0]
    assert "geo" not in zarr.open_group(tmp_path / "c.zarr", mode="r").attrs


def test_damaged_places_are_told_and_pixels_kept(tmp_path):
    keys = (1, 1, 0, 9, 1024, 0, 1, 1)  # says nine keys and holds one
    tags = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (34735, "H", len(keys), keys, True)]
    values = noise(20, 30)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=tags, metadata=None)
    assert ingest(tmp_path / "a.tif", tmp_path / "a.zarr").notes
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr/0")[0], values)


@pytest.mark.parametrize(
    "told",
    [
        None,
        3,
        {},
        {"crs": 3},
        {"crs": "EPSG:1", "affine": "x"},
        {"crs": "", "affine": [1]},
        {"crs": "", "affine": [1, 2, 0, 2, 4, 0]},
        {"crs": "", "affine": [1, 1, 0, -1, 1, math.inf]},
        {"crs": "", "affine": [10**400, 1, 0, -1, 1, 0]},
        {"crs": "", "affine": [1e300, 1, 0, -1, 1e300, 0]},
    ],
)
def test_hostile_attributes_are_no_place(tmp_path, told):
    tifffile.imwrite(tmp_path / "a.tif", noise(20, 30))
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr").attrs["geo"] = told
    assert open_image(str(tmp_path / "a.zarr")).geo is None
