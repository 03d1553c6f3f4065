"""What is exported is what is stored, and lies where it lay."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

import pipeline
from pipeline.errors import InputError, OutputError
from pipeline.exporting.export import export
from pipeline.ingesting.ingest import ingest
from tests.ingested import holds, names, noise


@pytest.fixture
def stack(tmp_path):
    """An image of two named channels with sizes, and its pixels."""
    values = noise(2, 601, 503, dtype="uint16")
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "Channel": {"Name": ["DAPI", "488"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, ome=True, metadata=metadata, tile=(64, 64))
    ingest(tmp_path / "a.ome.tif", tmp_path / "a.zarr", chunks=100)
    (tmp_path / "a.ome.tif").unlink()
    return str(tmp_path / "a.zarr"), values


@pytest.mark.parametrize("memory", ["1GB", 500_000])
def test_tiff_there_and_back(tmp_path, stack, memory):
    image, values = stack
    made = export(image, tmp_path / "b.tif", memory=memory)
    assert "2 × 601 × 503 uint16" in str(made)
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), values)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.is_ome
        assert tif.pages[0].is_tiled
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr", chunks=128)
    source = holds(tmp_path / "b.zarr", values, ("DAPI", "488"))
    assert (source.scale, source.units) == ((0.5, 0.25), ("micrometer", "micrometer"))
    assert names(tmp_path) == ["a.zarr", "b.tif", "b.zarr"]


@pytest.mark.parametrize("kind", ["bool", "int8", "uint8", "int64", "float16", "float32", "float64"])
def test_every_type(tmp_path, kind):
    values = (noise(1, 301, 40) > 99) if kind == "bool" else noise(1, 301, 40).astype(kind)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(1, 30, 40))
    export(str(tmp_path / "a.zarr"), tmp_path / "a.tif")
    found = tifffile.imread(tmp_path / "a.tif")
    assert found.dtype == values.dtype
    assert np.array_equal(found.reshape(values.shape), values)
    export(str(tmp_path / "a.zarr"), tmp_path / "a.npy")
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


@pytest.mark.parametrize("kind", ["uint8", "int64", "uint64", "float16", "float32"])
@pytest.mark.parametrize("shape", [(1, 5, 1), (3, 1, 1), (1, 300, 1), (2, 2, 2), (1, 1, 5), (2, 300, 1)])
def test_images_one_pixel_wide(tmp_path, shape, kind):
    values = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(kind)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=shape)
    export(str(tmp_path / "a.zarr"), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert [page.shape for page in tif.pages] == [shape[1:]] * shape[0]
        assert np.array_equal(np.array([page.asarray() for page in tif.pages]), values)
        assert np.array_equal(tif.asarray().reshape(shape), values)
    ingest(tmp_path / "a.tif", tmp_path / "b.zarr")
    holds(tmp_path / "b.zarr", values, tuple(map(str, range(shape[0]))) if shape[0] > 1 else None)


def test_a_region_of_a_channel(tmp_path, stack):
    image, values = stack
    part = values[1:, 95:333, 7:301]
    options = {"channels": ["488"], "region": ((95, 333), (7, 301))}
    export(Path(image), tmp_path / "b.npy", **options, memory=100_000)
    export(image, tmp_path / "b.tif", **options)
    assert np.array_equal(np.load(tmp_path / "b.npy"), part)
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), part[0])
    export(image, tmp_path / "c.npy", channels=[1, "DAPI"])
    assert np.array_equal(np.load(tmp_path / "c.npy"), values[::-1])
    export(image, tmp_path / "d.png", **options, window=(1000, 60000))
    expected = np.rint(np.clip((part[0].astype(float) - 1000) / 59000, 0, 1) * 255)
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "d.png")), expected.astype("uint8"))


def test_png_shows_each_colour_as_the_image_says(tmp_path):
    values = noise(3, 20, 30, dtype="uint16")
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", data=values, chunks=(1, 20, 30))
    windows = [(100, 60000), (5000, 20000), (0, 65535)]
    shown = [
        {"label": name, "color": "FFFFFF", "window": {"min": 0, "max": 65535, "start": low, "end": high}}
        for name, (low, high) in zip(("red", "green", "blue"), windows, strict=True)
    ]
    axes = [{"name": name, "type": kind} for name, kind in (("c", "channel"), ("y", "space"), ("x", "space"))]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": scales, "omero": {"channels": shown}}
    export(str(tmp_path / "a.zarr"), tmp_path / "a.png")
    found = np.moveaxis(np.asarray(PIL.Image.open(tmp_path / "a.png")), -1, 0)
    for number, (colour, plane, (low, high)) in enumerate(zip(found, values, windows, strict=True)):
        expected = np.rint(np.clip((plane - float(low)) / (high - low), 0, 1) * 255)
        assert np.array_equal(colour, expected)
        export(str(tmp_path / "a.zarr"), tmp_path / "one.png", channels=[number], overwrite=True)
        assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "one.png")), expected)


def test_png_shows_what_the_image_says(tmp_path):
    values = np.linspace(-3, 5, 40 * 30, dtype="float32").reshape(40, 30)
    values[0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    export(str(tmp_path / "a.zarr"), tmp_path / "a.png")
    found = np.asarray(PIL.Image.open(tmp_path / "a.png"))
    assert found.dtype == np.uint8
    assert found[0, 0] == found[0, 1] == 0
    assert found[-1, -1] == 255
    assert np.all(np.diff(found.ravel().astype(int)[1:]) >= 0)
    colours = noise(33, 35, 3)
    PIL.Image.fromarray(colours).save(tmp_path / "b.png")
    ingest(tmp_path / "b.png", tmp_path / "b.zarr")
    export(str(tmp_path / "b.zarr"), tmp_path / "c.png")
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "c.png")), colours)
    export(str(tmp_path / "b.zarr"), tmp_path / "c.tif")
    assert np.array_equal(np.moveaxis(tifffile.imread(tmp_path / "c.tif"), 0, 2), colours)


def test_refusals_leave_nothing(tmp_path, stack):
    image, _ = stack
    (tmp_path / "there.tif").write_text("mine")
    before = names(tmp_path)
    for file, options, error, match in (
        ("b.jpg", {}, OutputError, r"\.tif, .*expected|expected .*\.tif"),
        ("there.tif", {}, OutputError, "--overwrite"),
        ("none/b.tif", {}, OutputError, "no folder"),
        ("b.tif", {"channels": ["GFP"]}, InputError, "no channel 'GFP'; it has DAPI, 488"),
        ("b.tif", {"channels": [2]}, InputError, "no channel 2"),
        ("b.tif", {"window": (0, 1)}, OutputError, "only a PNG shows numbers between black and white; leave"),
        ("b.tif", {"region": ((0, 602), (0, 1))}, InputError, "y 0:602 .* 0:601"),
        ("b.tif", {"region": ((0, 1), (9, 9))}, InputError, "x 9:9"),
        ("b.tif", {"level": 1}, InputError, "level 1"),
        ("b.tif", {"level": -1}, InputError, "level -1; levels are counted from 0"),
        ("b.tif", {"channels": 0}, InputError, "channels 0: expected a list"),
        ("b.tif", {"channels": "DAPI"}, InputError, "channels 'DAPI': expected a list"),
        ("b.tif", {"region": ((0.5, 3), (0, 5))}, InputError, "whole pixels"),
        ("b.tif", {"region": ((0, 3),)}, InputError, "whole pixels"),
        ("b.png", {}, InputError, "--channel"),
        ("b.png", {"channels": [0], "memory": 10_000}, InputError, "--region"),
        ("b.png", {"channels": [0], "window": (3, 3)}, InputError, "must differ"),
        ("b.png", {"channels": [0], "window": (float("nan"), 3)}, InputError, "finite"),
        ("b.png", {"channels": [0], "window": (0, float("inf"))}, InputError, "finite"),
    ):
        with pytest.raises(error, match=match):
            export(image, tmp_path / file, **options)
        assert names(tmp_path) == before
    with pytest.raises(InputError, match="no such image"):
        export(str(tmp_path / "none.zarr"), tmp_path / "b.tif")
    export(image, tmp_path / "there.tif", overwrite=True)
    assert tifffile.imread(tmp_path / "there.tif").shape == (2, 601, 503)


def test_half_a_file_is_never_left(tmp_path, stack):
    image, _ = stack
    chunk = tmp_path / "a.zarr/0/c/1/3/2"
    chunk.write_bytes(b"no chunk")
    for file in ("b.tif", "b.npy"):
        with pytest.raises(InputError, match=r"a.zarr: y .* cannot be read"):
            export(image, tmp_path / file)
    assert names(tmp_path) == ["a.zarr"]


def test_a_map_of_an_incomplete_run_is_told_of(tmp_path):
    """What was not made looks like pixels of the fill value."""
    for name in ("good", "bad"):
        zarr.create_array(tmp_path / f"{name}.zarr", data=noise(9, 9), chunks=(9, 9))
    (tmp_path / "bad.zarr/c/0/0").write_bytes(b"no chunk")
    job = {
        "input": {"images": [str(tmp_path / "good.zarr"), str(tmp_path / "bad.zarr")]},
        "layers": [{"type": "pool"}],
        "output": {"store": str(tmp_path / "out.zarr")},
    }
    assert not pipeline.run(pipeline.plan(pipeline.load(job)), cluster="serial").complete
    map_ = str(tmp_path / "out.zarr/bad/pool")
    words = f"{map_}: its run is not complete: what is missing looks like empty space"
    assert export(map_, tmp_path / "b.npy").notes == (words,)
    job["input"]["images"] = str(tmp_path / "good.zarr")
    assert pipeline.run(pipeline.plan(pipeline.load(job)), cluster="serial", overwrite=True).complete
    assert export(str(tmp_path / "out.zarr/good/pool"), tmp_path / "c.npy").notes == ()


def test_planes_there_and_back(tmp_path):
    values = noise(2, 3, 4, 300, 35)
    metadata = {"axes": "TCZYX", "PhysicalSizeZ": 2, "TimeIncrement": 0.5, "Channel": {"Name": ["a", "b", "c"]}}
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, metadata=metadata, photometric="minisblack")
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=64)
    image = str(tmp_path / "a.zarr")
    made = export(image, tmp_path / "b.tif")
    assert "2 × 3 × 4 × 300 × 35" in str(made)
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    assert np.array_equal(zarr.open_array(tmp_path / "b.zarr/0")[:], values)
    before, after = (zarr.open_group(tmp_path / f"{name}.zarr", mode="r").attrs["ome"] for name in "ab")
    for ome in (before, after):
        ome["multiscales"][0].pop("name")
    assert before == after
    export(image, tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "b.npy"), values)
    export(image, tmp_path / "c.npy", t=1, z=2, channels=["c"])
    assert np.array_equal(np.load(tmp_path / "c.npy"), values[1, 2, 2][None])
    export(image, tmp_path / "d.npy", z=3)
    assert np.array_equal(np.load(tmp_path / "d.npy"), values[:, :, 3:])
    with pytest.raises(InputError, match="--t, --z"):
        export(image, tmp_path / "b.png", channels=["c"])
    export(image, tmp_path / "b.png", channels=["c"], t=0, z=1)
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "b.png")), values[0, 2, 1])
    with pytest.raises(InputError, match="no plane 4 along z; it has 4"):
        export(image, tmp_path / "e.npy", z=4)


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_numbers_that_stand_for_others_are_told(tmp_path, suffix):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 9), dtype="int8")
    array.attrs.update({"scale_factor": 0.5, "add_offset": 1.0, "missing_value": -128})
    array[:] = 3
    made = export(str(tmp_path / "a.zarr"), tmp_path / f"a{suffix}")
    told = "holds the numbers as they are stored, which stand for others: scale_factor 0.5, add_offset 1, missing_value"
    assert any(f"{tmp_path / 'a'}{suffix}: {told} -128" == note for note in made.notes)
    assert export(str(tmp_path / "a.zarr"), tmp_path / "a.png").notes == ()
    told = told.replace("holds the numbers", "black and white are numbers")
    assert export(str(tmp_path / "a.zarr"), tmp_path / "b.png", window=(0, 9)).notes == (
        f"{tmp_path / 'b.png'}: {told} -128",
    )
