"""Outputs open everywhere: valid for ome-zarr-models, read by ome-zarr, xarray and zarr alone, laid out for viewers."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v04.image import Image as Image04
from ome_zarr_models.v05.image import Image as Image05

import pipeline
from pipeline.pixels import Encoding

KINDS = {
    "0.5": {},
    "0.5, shards": {"shards": 64},
    "0.5, pyramid, float16": {"pyramid": "mean", "dtype": "float16"},
    "0.5, pyramid, shards, int8": {"pyramid": "max", "shards": 64, "dtype": "int8", "range": [-2, 2]},
    "0.4": {"ome_zarr": "0.4", "compression": {"codec": "zstd", "level": 9}},
    "0.4, pyramid, uint16": {"ome_zarr": "0.4", "pyramid": "mean", "dtype": "uint16", "range": [-2, 2]},
}

NEUROGLANCER = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"}
"""The types that neuroglancer draws, by its own list."""


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Make the store of a kind; gives its place and the output section."""
    folder = tmp_path_factory.mktemp("ome")
    image = zarr.create_group(folder / "scan.ome.zarr")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 131, 97)).astype(np.uint8)
    image.create_array("0", data=pixels, chunks=(1, 40, 40), dimension_names=("c", "y", "x"))
    axes = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    at = [{"type": "scale", "scale": [1, 0.5, 0.25]}, {"type": "translation", "translation": [0, 10, -20]}]
    datasets = [{"path": "0", "coordinateTransformations": at}]
    image.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    output = {"store": str(folder / "maps.zarr"), "layers": ["match", "pool"], "chunks": 32, **KINDS[request.param]}
    config = {
        "input": {"images": str(folder / "scan.ome.zarr")},
        "features": {"edge": {"rows": [[1, 2], [3, -4]]}, "dot": {"rows": [[0, 1], [2, 1]]}},
        "layers": [
            {"type": "convolution", "name": "match", "features": ["edge", "dot"]},
            {"type": "pool"},
        ],
        "output": output,
    }
    assert pipeline.run(pipeline.plan(pipeline.load(config)), "serial").complete
    return folder / "maps.zarr", output


def is_old(output: dict[str, Any]) -> bool:
    return output.get("ome_zarr") == "0.4"


def images(store: Path) -> list[Path]:
    return [store / "scan" / "match", store / "scan" / "pool"]


def test_ome_zarr_models_finds_nothing_wrong(made: tuple[Path, dict[str, Any]]) -> None:
    store, output = made
    for path in images(store):
        group = zarr.open_group(path, mode="r")
        image = (Image04 if is_old(output) else Image05).from_zarr(group)
        assert image.ome_zarr_version == output.get("ome_zarr", "0.5")
        assert isinstance(open_ome_zarr(group), type(image))
        (multiscale,) = image.ome_attributes.multiscales
        assert multiscale.type == output.get("pyramid")
        assert [axis.unit for axis in multiscale.axes] == [None, "micrometer", "micrometer"]
        assert (len(multiscale.datasets) > 1) == ("pyramid" in output)


def test_ome_zarr_reads_every_level_names_and_windows(made: tuple[Path, dict[str, Any]]) -> None:
    store, _ = made
    for path in images(store):
        (node,) = Reader(parse_url(path))()
        plain = zarr.open_group(path, mode="r")
        assert len(node.data) == len(list(plain.array_keys()))
        for number, level in enumerate(node.data):
            assert np.array_equal(level.compute(), plain[str(number)][:])
        assert node.metadata["channel_names"] == ["edge", "dot"]
        for channel, (low, high) in enumerate(node.metadata["contrast_limits"]):
            numbers = plain["0"][channel]
            assert numbers.min() <= low < high <= numbers.max()
            assert 0.9 < np.mean((numbers >= low) & (numbers <= high)) < 1


def test_xarray_reads_it_from_the_consolidated_metadata(made: tuple[Path, dict[str, Any]]) -> None:
    store, output = made
    for path in images(store):
        plain = zarr.open_group(path, mode="r", use_consolidated=False)
        others = [name for name in plain.array_keys() if name != "0"]
        inner = {"group": f"scan/{path.name}", "store": store}
        for words in ({"store": path}, inner):
            with xr.open_zarr(**words, consolidated=True, drop_variables=others, decode_cf=False) as found:
                assert found["0"].dims == ("c", "y", "x")
                assert np.array_equal(found["0"].values, plain["0"][:])
        with xr.open_zarr(path, drop_variables=others) as decoded:
            encoding = Encoding(output.get("dtype", "float32"), *output.get("range", (-1, 1)))
            np.testing.assert_allclose(decoded["0"].values, encoding.decode(plain["0"][:]), rtol=1e-6, atol=1e-6)


def test_the_whole_store_opens_as_a_tree_where_there_is_no_pyramid(made: tuple[Path, dict[str, Any]]) -> None:
    store, output = made
    if "pyramid" in output:
        return  # levels share the names of their axes, as OME-Zarr has it, which one Dataset cannot
    with xr.open_datatree(store, engine="zarr") as tree:
        assert tree["scan/match/0"].shape == (2, 130, 96)
        assert tree["scan/pool/0"].shape == (2, 65, 48)


def test_consolidated_metadata_repeats_what_lies_in_the_store(made: tuple[Path, dict[str, Any]]) -> None:
    store, output = made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = zarr.open_consolidated(store)
    apart = zarr.open_group(store, mode="r", use_consolidated=False)
    assert together.attrs.asdict() == apart.attrs.asdict()
    assert together.attrs["_haloflow"]["complete"] is True
    known = dict(together["scan"].members(max_depth=None))
    found = dict(apart["scan"].members(max_depth=None, use_consolidated_for_children=False))
    assert list(together.group_keys()) == ["scan"]  # the run's own things are no maps
    assert known.keys() == found.keys()
    for name, node in found.items():
        assert known[name].attrs.asdict() == node.attrs.asdict()
        if isinstance(node, zarr.Array):  # as text, in which NaN is NaN
            assert json.dumps(known[name].metadata.to_dict()) == json.dumps(node.metadata.to_dict())
    if is_old(output):  # a reader of format 2 alone takes the root's attributes from here
        told = json.loads((store / ".zmetadata").read_text())["metadata"]
        assert told[".zattrs"] == apart.attrs.asdict()
        assert told["scan/match/.zattrs"]["omero"]["channels"][0]["label"] == "edge"


def test_it_is_laid_out_as_its_version_asks_and_viewers_need(made: tuple[Path, dict[str, Any]]) -> None:
    store, output = made
    for path in images(store):
        group = zarr.open_group(path, mode="r")
        old = is_old(output)
        assert group.metadata.zarr_format == (2 if old else 3)
        told = group.attrs.asdict() if old else group.attrs["ome"]
        version = told["multiscales"][0]["version"] if old else told["version"]
        assert version == output.get("ome_zarr", "0.5")
        scales = []
        for dataset in told["multiscales"][0]["datasets"]:
            array = group[dataset["path"]]
            assert (array.dtype.name in NEUROGLANCER) == (output.get("dtype") != "float16")
            key = array.metadata.encode_chunk_key((0, 0, 0))
            assert key == ("0/0/0" if old else "c/0/0/0")
            assert (path / dataset["path"] / key).is_file()
            if not old:
                assert array.metadata.dimension_names == ("c", "y", "x")
            assert [t["type"] for t in dataset["coordinateTransformations"]] == ["scale", "translation"]
            scales.append(dataset["coordinateTransformations"][0]["scale"])
        assert scales == sorted(scales)  # the finest first
        stride = 2 if path.name == "pool" else 1
        assert scales[0] == [1, 0.5 * stride, 0.25 * stride]
        assert told["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]["translation"] == [
            0,
            10 + 0.5 * stride / 2,
            -20 + 0.25 * stride / 2,
        ]
        for channel in told["omero"]["channels"]:
            window = channel["window"]
            assert window["min"] <= window["start"] < window["end"] <= window["max"]


def test_haloflow_reads_any_level_of_it(made: tuple[Path, dict[str, Any]]) -> None:
    store, _ = made
    for path in images(store):
        for level in range(len(list(zarr.open_group(path, mode="r").array_keys()))):
            config = {
                "input": {"images": str(path), "level": level},
                "layers": [{"type": "relu"}],
                "output": {"store": str(store.parent / "again.zarr")},
            }
            job = pipeline.load(config)
            (planned,) = pipeline.plan(job).images
            assert planned.source.channels == ("edge", "dot")
            assert planned.source.units == ("micrometer", "micrometer")
            array = zarr.open_array(path / str(level), mode="r")
            assert planned.source.extents == array.shape[1:]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_zeros_are_no_missing_pixels_and_empty_space_has_its_value_in_both_versions(tmp_path: Path, dtype: str) -> None:
    array = zarr.create_array(tmp_path / "image.zarr", shape=(256, 256), chunks=(16, 16), dtype="f4")
    array[:16, :16] = 1
    for version in ("0.5", "0.4"):
        store = str(tmp_path / f"{version}.zarr")
        config = {
            "input": {"images": str(tmp_path / "image.zarr")},
            "layers": [{"type": "normalise", "scale": 1, "offset": 0}],
            "output": {"store": store, "chunks": 32, "dtype": dtype, "range": [0, 1], "ome_zarr": version},
        }
        if dtype == "float32":
            del config["output"]["range"]
        assert pipeline.run(pipeline.plan(pipeline.load(config)), "serial").complete
        with xr.open_zarr(store, group="image/normalise") as found:
            np.testing.assert_array_equal(found["0"].values[0], array[:])


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_a_pixel_that_is_not_finite_leaves_the_contrast(tmp_path: Path, odd: float) -> None:
    """Of two channels: that of the one without it is the same as if there were none."""
    values = np.random.default_rng(6).normal(300, 50, (2, 60, 64)).astype(np.float32)
    shown = {}
    for name in ("plain", "odd"):
        if name == "odd":
            values[0, 7, 7] = odd
        zarr.create_array(tmp_path / f"{name}.zarr", data=values, chunks=(1, 32, 32))
        config = {
            "input": {"images": str(tmp_path / f"{name}.zarr"), "black": 0, "white": 1},
            "layers": [{"type": "leaky_relu"}],
            "output": {"store": str(tmp_path / f"{name}-maps.zarr")},
        }
        assert pipeline.run(pipeline.plan(pipeline.load(config)), "serial").complete
        group = zarr.open_group(tmp_path / f"{name}-maps.zarr/{name}/leaky_relu", mode="r")
        shown[name] = [channel["window"] for channel in group.attrs["ome"]["omero"]["channels"]]
    assert shown["plain"][1]["end"] > 400
    for plain, found in zip(shown["plain"], shown["odd"], strict=True):
        assert (found["start"], found["end"]) == pytest.approx((plain["start"], plain["end"]), rel=0.02)
        assert plain["min"] <= found["min"] <= found["start"]
        assert found["end"] <= found["max"] <= plain["max"]
