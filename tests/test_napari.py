"""napari's reader of OME-Zarr, where it is installed: names, sizes, contrast, and maps that lie on their image."""

import warnings
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.storage.metadata import Placed, Window, describe

with warnings.catch_warnings():  # what napari and its dependencies warn of as they are imported
    warnings.simplefilter("ignore")
    READER = pytest.importorskip("napari_ome_zarr", exc_type=ImportError).napari_get_reader

AXES = (("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer"))
SCALE, FIRST = (1.0, 2.0, 0.25, 0.5), (0.0, -8.0, 100.0, 200.0)
DOT = (1, 150, 211)


def write(path, pixels) -> None:
    level = Placed("0", SCALE, FIRST)
    named = describe("image", AXES, [level], ("DAPI", "GFP"), [Window.of(0, 255)] * 2)
    group = zarr.create_group(path, attributes=named)
    group.create_array("0", shape=pixels.shape, chunks=(1, 1, 64, 64), dtype="uint8")[:] = pixels


@pytest.mark.filterwarnings("ignore")
def layers(path) -> tuple[list[Any], dict[str, Any]]:
    """Return the levels that napari would show, and what of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ((data, told, kind),) = READER(str(path))(str(path))
    assert kind == "image"
    return data, told


def world(told: dict[str, Any], pixel: np.ndarray) -> np.ndarray:
    """Return where napari shows a pixel (z, y, x)."""
    at = np.asarray(told["scale"]) * pixel + np.asarray(told.get("translate", 0.0))
    return told["affine"].affine_matrix[:3] @ [*at, 1.0] if "affine" in told else at


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An image of two channels and three planes with one bright dot in the second of each, and maps of a region."""
    folder = tmp_path_factory.mktemp("napari")
    pixels = np.zeros((2, 3, 256, 300), np.uint8)
    pixels[(1, *DOT)] = 255
    write(folder / "image.zarr", pixels)
    job = pipeline.load(
        {
            "input": {
                "images": str(folder / "image.zarr"),
                "channels": "GFP",
                "z": [1, 3],
                "region": {"y": [10, 240], "x": [20, 290]},
                "black": 0,
            },
            "features": {"peak": {"rows": [[0, 0, 0], [0, 1, 0], [0, 0, 0]]}, "sum": {"rows": [[1] * 3] * 3}},
            "layers": [
                {"type": "convolution", "name": "match", "features": ["peak", "sum"], "match": "sum"},
                {"type": "pool", "window": 2},
            ],
            "output": {"store": str(folder / "maps.zarr"), "layers": ["match", "pool"], "pyramid": "max", "chunks": 64},
        }
    )
    assert pipeline.run(pipeline.plan(job), cluster="serial").complete
    return folder


@pytest.mark.parametrize(("layer", "stride"), [("match", 1), ("pool", 2)])
def test_a_map_has_its_names_sizes_and_levels(store, layer, stride):
    data, told = layers(store / "maps.zarr" / "image" / layer)
    assert [name.rpartition(": ")[2] for name in told["name"]] == ["peak", "sum"]
    assert told["channel_axis"] == 0
    assert tuple(told["scale"]) == (2.0, 0.25 * stride, 0.5 * stride)
    assert data[0].shape == (2, 2, 228 // stride, 268 // stride)
    assert [d.shape[2] for d in data] == sorted((d.shape[2] for d in data), reverse=True)
    assert len(data) > 2
    assert all(low < high for low, high in told["contrast_limits"])
    stored: Any = zarr.open_array(store / "maps.zarr" / "image" / layer / "0", mode="r")[:]
    np.testing.assert_array_equal(data[0], stored)


@pytest.mark.parametrize("layer", ["match", "pool"])
def test_a_map_lies_on_its_image(store, layer):
    _, told = layers(store / "image.zarr")
    if not world(told, np.zeros(3)).any():
        pytest.skip("this version of napari-ome-zarr leaves the translations of all images out")
    dot = world(told, np.array(DOT))
    np.testing.assert_allclose(dot, np.multiply(SCALE, (0, *DOT))[1:] + FIRST[1:])
    data, shown = layers(store / "maps.zarr" / "image" / layer)
    peaks = np.argwhere(np.asarray(data[0][0]) == np.asarray(data[0][0]).max())
    assert len(peaks) == 1
    # A pooled pixel shows the maximum of two by two around its centre.
    off = 0.0 if layer == "match" else 0.5
    assert (np.abs(world(shown, peaks[0]) - dot) <= off * np.array(SCALE[1:])).all()
