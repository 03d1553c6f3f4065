"""Where maps lie: a dot stays where it is in world coordinates, and an output pixel lies amid the pixels it depends on.

What a store says is read here from its JSON by hand: scale and translation of the pixels' centres.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.errors import StackError

SCALE, TRANSLATION = (0.5, 2.0), (10.0, -3.0)


def image(path: Path, pixels: np.ndarray) -> None:
    """Write an OME-Zarr image by zarr alone."""
    group = zarr.create_group(path, overwrite=True)
    array = group.create_array("s0", shape=pixels.shape, chunks=(16, 16), dtype=pixels.dtype)
    array[...] = pixels
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    placed = [{"type": "scale", "scale": list(SCALE)}, {"type": "translation", "translation": list(TRANSLATION)}]
    dataset = {"path": "s0", "coordinateTransformations": placed}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset], "name": "dot"}]}


def run(folder: Path, pixels: np.ndarray, layers: list[Any], features: dict[str, Any]) -> tuple[np.ndarray, list[Any]]:
    """Return the last map, and for y and x its scale and translation as the store has them."""
    image(folder / "dot.zarr", pixels)
    job = pipeline.load(
        {
            "input": {"images": str(folder / "dot.zarr")},
            "features": features,
            "layers": layers,
            "output": {"store": str(folder / "out.zarr"), "chunks": 8},
        }
    )
    pipeline.run(pipeline.plan(job), "serial", overwrite=True)
    group = folder / "out.zarr" / "dot" / job.stack.names[-1]
    (multiscale,) = json.loads((group / "zarr.json").read_text())["attributes"]["ome"]["multiscales"]
    assert [axis.get("unit") for axis in multiscale["axes"]] == [None, "micrometer", "micrometer"]
    steps = {step["type"]: step for step in multiscale["datasets"][0]["coordinateTransformations"]}
    placed = list(zip(steps["scale"]["scale"], steps["translation"]["translation"], strict=True))[1:]
    return np.asarray(zarr.open_array(group / "0", mode="r")), placed


def feature(size: int) -> list[list[float]]:
    """A hill with its top in the middle: one pixel of an odd size, two of an even one."""
    side = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    return np.outer(side, side).tolist()


@st.composite
def stacks(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any]]:
    layers: list[Any] = []
    features: dict[str, Any] = {}
    for place in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["convolution", "pool", "relu"]))
        if kind == "convolution":
            size = draw(st.integers(2, 5))
            # A stride over a dilation, or a dilation of an even feature, can step over a dot without seeing it.
            dilation = draw(st.integers(1, 3)) if size % 2 else 1
            stride = draw(st.integers(1, 2)) if dilation == 1 else 1
            features[f"hill{place}"] = {"rows": feature(size)}
            layer = {"type": kind, "features": f"hill{place}", "dilation": dilation, "stride": stride}
            layers.append(layer | draw(st.sampled_from([{}, {"padding": "same"}])))
        elif kind == "pool":
            window, stride = draw(st.sampled_from([(2, 2), (3, 2), (3, 3), (3, 1)]))
            op, partial = draw(st.sampled_from(["max", "mean"])), draw(st.sampled_from(["keep", "drop"]))
            layers.append({"type": kind, "op": op, "window": window, "stride": stride, "partial": partial})
        else:
            layers.append({"type": kind})
    return layers, features


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coordinates")


few = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(stacks(), st.tuples(st.integers(50, 70), st.integers(50, 70)))
def test_a_dot_stays_where_it_is(folder: Path, stack: tuple[list[Any], dict[str, Any]], at: tuple[int, int]) -> None:
    pixels = np.zeros((120, 120), np.float32)
    pixels[at] = 1
    maps, placed = run(folder, pixels, *stack)
    # Where several pixels share the maximum (a dot under two windows), their middle; rank-1 features may round apart.
    top = np.argwhere(maps[0] >= maps[0].max() * (1 - 1e-6)).mean(0)
    assert maps[0].max() > 0
    for axis, (scale, translation) in enumerate(placed):
        world = TRANSLATION[axis] + SCALE[axis] * at[axis]
        assert abs(translation + scale * top[axis] - world) <= scale / 2 + 1e-9


@few
@given(stacks(), st.integers(0, 1))
def test_an_output_pixel_lies_amid_what_it_depends_on(
    folder: Path, stack: tuple[list[Any], dict[str, Any]], axis: int
) -> None:
    job = pipeline.load(
        {
            "input": {"images": "none.zarr"},
            "features": stack[1],
            "layers": stack[0],
            "output": {"store": "none"},
        }
    )
    extent = 48
    depends = []
    for n in range(extent):  # a NaN goes wherever its pixel counts
        pixels = np.zeros((extent, extent), np.float32)
        np.moveaxis(pixels, axis, 0)[n] = np.nan
        try:
            depends.append(np.isnan(np.moveaxis(job.stack(pixels)[0], axis, 0)).any(1))
        except StackError:
            return
    influence = np.array(depends)  # input pixel × output pixel
    inside = influence.sum(0) == influence.sum(0).max()
    inside &= ~influence[0] & ~influence[-1]  # windows that no edge cuts
    _, placed = run(folder, np.zeros((extent, extent), np.float32), *stack)
    scale, translation = placed[axis]
    for o in np.flatnonzero(inside):
        middle = np.flatnonzero(influence[:, o]).mean()
        assert translation + scale * o == pytest.approx(TRANSLATION[axis] + SCALE[axis] * middle)
