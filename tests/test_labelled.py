"""xarray: a stack over named axes, and a store opened as a tree of maps, both with coordinates in the right place."""

import builtins
import pickle
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import pipeline
from pipeline.errors import InputError, OutputError, StackError

EDGE = {"edge": {"rows": [[-1, 2, 0], [3, 4, -5]]}, "blob": {"rows": [[1, 2, 1], [0, 1, 3]]}}
PIXELS = np.random.default_rng(3).integers(0, 256, (3, 2, 4, 33, 29)).astype(np.uint8)


def load(folder: Path, **output: Any) -> pipeline.Job:
    return pipeline.load(
        {
            "input": {"images": str(folder / "i.zarr")},
            "features": EDGE,
            "layers": [
                {"type": "convolution", "features": ["edge", "blob"], "padding": "same"},
                {"type": "pool", "window": 3, "stride": 2},
            ],
            "output": {"store": str(folder / "o.zarr"), "chunks": 4, **output},
        }
    )


def labelled(data: Any, dims: list[str]) -> xr.DataArray:
    coords = {
        "y": ("y", 10 + 0.5 * np.arange(33), {"units": "micrometer"}),
        "x": ("x", 7 - 2.0 * np.arange(29)),
        "z": ("z", [1.0, 2.0, 4.0, 8.0]),
    }
    return xr.DataArray(data, dims=dims, coords={k: v for k, v in coords.items() if k in dims}, name="scan")


@pytest.mark.parametrize("channel", ["c", "channel", "band"])
def test_every_plane_of_a_data_array_is_run(tmp_path: Path, channel: str) -> None:
    job = load(tmp_path)
    image = labelled(PIXELS, ["t", channel, "z", "y", "x"])
    maps = job.stack(image)
    assert maps.dims == ("t", "z", "feature", "y", "x")
    assert isinstance(maps.data, np.ndarray)
    assert list(maps.feature.values) == ["edge", "blob"]
    assert maps.name == "scan"
    # 2 × 3 'same' pads nothing above and one to the left, and pooling spans three: 0.5 + 1 and 0 + 1 from the first.
    np.testing.assert_allclose(maps.y.values, 10 + 0.5 * (1.5 + 2 * np.arange(maps.sizes["y"])))
    np.testing.assert_allclose(maps.x.values, 7 - 2.0 * (1 + 2 * np.arange(maps.sizes["x"])))
    assert maps.y.attrs == {"units": "micrometer"}
    np.testing.assert_array_equal(maps.z.values, image.z.values)
    for t, z in np.ndindex(3, 4):
        np.testing.assert_array_equal(maps[t, z].values, job.stack(PIXELS[t, :, z]))


@pytest.mark.parametrize("lazy", [False, True])
def test_maps_are_called_by_the_names_of_channels_as_those_of_a_run_are(tmp_path: Path, lazy: bool) -> None:
    names = ["DAPI", "GFP"]
    ome = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")],
                "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 3]}]}],
            }
        ],
        "omero": {"channels": [{"label": name} for name in names]},
    }
    stored = zarr.create_group(tmp_path / "i.zarr", attributes={"ome": ome})
    stored.create_array("0", data=PIXELS[0, :, 0], dimension_names=["c", "y", "x"])
    weights = {"bright": {"DAPI": 2, "GFP": -1}, "dark": {"GFP": 3, "DAPI": 0.5}}
    job = pipeline.load(
        {
            "input": {"images": str(tmp_path / "i.zarr")},
            "features": EDGE,
            "layers": [{"type": "pool"}, {"type": "vote", "weights": weights}],
            "output": {"store": str(tmp_path / "o.zarr"), "layers": ["pool", "vote"]},
        }
    )
    pipeline.run(pipeline.plan(job), cluster="serial")
    tree = pipeline.open(tmp_path / "o.zarr")
    image = xr.DataArray(
        da.from_array(PIXELS[0, :, 0], chunks=9) if lazy else PIXELS[0, :, 0],
        dims=["c", "y", "x"],
        coords={"c": names, "y": 2.0 * np.arange(33), "x": 3.0 * np.arange(29)},
    )
    for layer in ("pool", "vote"):
        xr.testing.assert_equal(job.stack(image, layer).compute(), tree[f"i/{layer}"][layer].compute())
    with pytest.raises(StackError, match="the layer takes 0, 1"):
        job.stack(image.assign_coords(c=[1, 2]))
    with pytest.raises(StackError, match="the layer takes DAPI_0, DAPI_1"):
        job.stack(image.assign_coords(c=["DAPI", "DAPI"]))


def test_a_dask_array_stays_lazy(tmp_path: Path) -> None:
    job = load(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        image = labelled(da.from_array(PIXELS, chunks=(1, 1, 1, 16, 10)), ["t", "c", "z", "y", "x"])
        maps = job.stack(image.isel(t=0), layer="convolution")
    assert isinstance(maps.data, da.Array)
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(maps[2].values, job.stack(PIXELS[0, :, 2], layer="convolution"))


def test_coordinates_that_are_not_evenly_spaced_are_left_out(tmp_path: Path) -> None:
    image = labelled(PIXELS[0, 0, 0], ["y", "x"])
    maps = load(tmp_path).stack(image.assign_coords(y=np.arange(33.0) ** 2))
    assert "y" not in maps.coords
    assert "x" in maps.coords


def test_coordinates_of_few_digits_and_those_of_no_axis_are_kept(tmp_path: Path) -> None:
    job = load(tmp_path)
    y = (np.arange(33) * 0.1 + 20).astype(np.float32)
    image = xr.DataArray(PIXELS[0, 0, 0], dims=("y", "x"), coords={"y": y, "x": range(29), "spatial_ref": 4326})
    maps = job.stack(image)
    np.testing.assert_allclose(maps.y.values, 20 + 0.1 * (1.5 + 2 * np.arange(maps.sizes["y"])), rtol=1e-6)
    assert maps.spatial_ref == 4326
    assert "y" not in job.stack(image.assign_coords(y=np.full(33, np.nan))).coords


def test_axes_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the DataArray has the axes a, x; expected y and x among them"):
        load(tmp_path).stack(xr.DataArray(PIXELS[0, 0, 0], dims=["a", "x"]))
    with pytest.raises(InputError, match="has the axes c and band; only one can be of channels"):
        load(tmp_path).stack(xr.DataArray(PIXELS[0], dims=["c", "band", "y", "x"]))
    with pytest.raises(InputError, match="has an axis feature, as the maps will have; rename it, to channel if"):
        load(tmp_path).stack(xr.DataArray(PIXELS[0, 0], dims=["feature", "y", "x"]))
    for axis, cut in (("t", np.s_[:0]), ("y", np.s_[:, :0]), ("x", np.s_[:, :, :0])):
        for data in (PIXELS[:, 0, 0][cut], da.from_array(PIXELS[:, 0, 0][cut])):
            with pytest.raises(InputError, match=f"the DataArray has no pixels along {axis}"):
                load(tmp_path).stack(xr.DataArray(data, dims=["t", "y", "x"]))


def test_a_dataset_is_told_to_choose_a_variable(tmp_path: Path) -> None:
    image = labelled(PIXELS[0, 0, 0], ["y", "x"])
    with pytest.raises(InputError, match="takes a DataArray, not a Dataset; its variables are: scan, other"):
        load(tmp_path).stack(xr.Dataset({"scan": image, "other": image}))
    with pytest.raises(InputError, match="takes a DataArray, not a DataTree; its variables are: scan"):
        load(tmp_path).stack(xr.DataTree(xr.Dataset({"scan": image})))


@pytest.mark.parametrize("output", [{}, {"dtype": "int8", "range": [-9.0, 9.0]}, {"ome_zarr": "0.4"}], ids=str)
def test_a_store_opens_as_a_tree_of_maps(tmp_path: Path, output: dict[str, Any]) -> None:
    zarr.create_array(str(tmp_path / "i.zarr"), data=PIXELS, chunks=(1, 1, 1, 16, 16), dimension_names=list("tczyx"))
    job = load(tmp_path, layers=["convolution", "pool"], **output)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    tree = pipeline.open(str(tmp_path / "o.zarr"))
    assert {node.path for node in tree.leaves} == {"/i/convolution", "/i/pool"}
    maps = tree["i/pool/pool"]
    assert isinstance(maps.data, da.Array)
    assert maps.dims == ("t", "feature", "z", "y", "x")
    assert maps.dtype == np.float32
    assert list(maps.feature.values) == ["edge", "blob"]
    np.testing.assert_allclose(maps.y.values, 1.5 + 2 * np.arange(maps.sizes["y"]))
    np.testing.assert_allclose(maps.x.values, 1 + 2 * np.arange(maps.sizes["x"]))
    expected = job.stack(PIXELS[1, :, 2])
    off = 9 / 127 / 2 if "dtype" in output else 0
    np.testing.assert_allclose(
        maps[1, :, 2].values, np.clip(expected, -9, 9) if off else expected, atol=off + 1e-6 * bool(off)
    )


@pytest.mark.parametrize("name", ["x", "y", "t", "z", "feature"])
def test_a_layer_that_is_called_as_an_axis_does_not_lose_its_map(tmp_path: Path, name: str) -> None:
    zarr.create_array(str(tmp_path / "i.zarr"), data=PIXELS[0, 0], dimension_names=list("zyx"))
    config = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "layers": [{"type": "relu", "name": name}],
        "output": {"store": str(tmp_path / "o.zarr")},
    }
    job = pipeline.load(config)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    node = pipeline.open(str(tmp_path / "o.zarr"))[f"i/{name}"]
    assert list(node.data_vars) == [f"{name}_maps"]
    maps = node[f"{name}_maps"]
    assert maps.dims == ("feature", "z", "y", "x")
    np.testing.assert_array_equal(maps.x.values, np.arange(29))
    np.testing.assert_array_equal(maps[:, 3].values, job.stack(PIXELS[0, 0, 3]))


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none\.zarr: is no store that haloflow made"):
        pipeline.open(str(tmp_path / "none.zarr"))


def test_without_xarray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r"pip install 'haloflow\[xarray\]'"):
        pipeline.open(str(tmp_path / "o.zarr"))
    assert builtins.open is not pipeline.open


def test_jobs_are_compared_and_serve_as_keys(tmp_path: Path) -> None:
    job = load(tmp_path)
    again = pickle.loads(pickle.dumps(job))  # noqa: S301 - of our own making
    for one, other in ((job, again), (job.stack, again.stack)):
        assert one == one  # noqa: PLR0124 - arrays among its parts make no truth value
        assert one != other
        assert {one: 1}[one] == 1
    assert again.config == job.config
