"""Tables of drawn stacks: any strides, several layers looked at, blocks that own nothing of a coarse map."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from tests.test_tables import whole
from tests.test_tables_peaks import brute

FEATURES = {"a": {"rows": [[1, -2, 3], [2, 1, -1]]}, "b": {"rows": [[-1, 2, 1], [1, 0, 2]]}}


@st.composite
def stacks(draw: st.DrawFn) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = [
        {
            "type": "convolution",
            "name": "one",
            "features": ["a", "b"],
            "stride": draw(st.integers(1, 2)),
            **draw(st.sampled_from([{}, {"padding": "same"}, {"padding": "same", "boundary": "reflect"}])),
        },
        {"type": "pool", "name": "two", "window": draw(st.integers(1, 3)), "stride": draw(st.integers(1, 3))},
    ]
    return layers


@given(stacks(), st.data())
@settings(max_examples=30, deadline=None)
def test_tables_of_any_layers_are_those_of_the_whole_maps(layers: list[dict[str, Any]], data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(8, 60), st.integers(8, 60)), "shape")
    pixels = np.random.default_rng(data.draw(st.integers(0, 99))).choice(np.array([0, 80, 255], np.uint8), shape)
    if data.draw(st.booleans(), "sparse"):
        pixels[:, data.draw(st.integers(0, 30)) :] = 0
    wanted = {
        "layer": data.draw(st.sampled_from(["one", "two"])),
        "threshold": data.draw(st.sampled_from([-5.0, 0.0, 0.5])),
        "distance": data.draw(st.integers(1, 9)),
    }
    here = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108
    try:
        array = zarr.create_array(f"{here}/i.zarr", shape=shape, chunks=(8, 8), dtype="u1", fill_value=0)
        array[:] = pixels
        job = pipeline.load(
            {
                "input": {"images": f"{here}/i.zarr"},
                "features": FEATURES,
                "layers": layers,
                "output": {
                    "store": f"{here}/o.zarr",
                    "chunks": data.draw(st.tuples(st.integers(3, 40), st.integers(3, 40)), "chunks"),
                    "layers": data.draw(st.sampled_from([[], ["one"], ["two"], ["two", "one"]]), "kept"),
                    "detections": wanted,
                    "summaries": {"layers": ["two", "one"]},
                },
            }
        )
        with pytest.MonkeyPatch.context() as patch:
            if data.draw(st.booleans(), "small tasks"):
                patch.setattr("pipeline.planner.TASK_PIXELS", 0)
            assert pipeline.run(pipeline.plan(job), "serial").complete
        tables = f"{here}/o.zarr/_haloflow/tables"
        peaks, sums = (pd.read_parquet(f"{tables}/{name}.parquet") for name in ("detections", "summaries"))
        for layer in ("one", "two"):
            assert np.array_equal(sums[sums["layer"] == layer]["max"], whole(job, pixels, layer).max(axis=(1, 2)))
            mean = whole(job, pixels, layer).astype(np.float64).mean(axis=(1, 2))
            np.testing.assert_allclose(sums[sums["layer"] == layer]["mean"], mean, rtol=1e-12, atol=1e-12)
        maps = whole(job, pixels, wanted["layer"])
        found = zip(peaks["map_y"], peaks["map_x"], (peaks["feature"] == "b").astype(int), strict=True)
        assert list(found) == brute(maps, wanted["threshold"], wanted["distance"])
    finally:
        shutil.rmtree(here)


def test_a_plain_that_begins_where_an_empty_block_does_has_its_peak_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block reads nothing but fill value; that its first pixel is a peak is seen from those around it."""
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    pixels = np.zeros((160, 160), np.uint8)
    pixels[64:, 32:] = 255
    array = zarr.create_array(str(tmp_path / "i.zarr"), shape=(160, 160), chunks=(32, 32), dtype="u1", fill_value=255)
    array[:] = pixels
    told = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "features": {"dot": {"rows": [[1]]}},
        "layers": [{"type": "convolution", "features": "dot"}],
        "output": {"store": str(tmp_path / "o.zarr"), "chunks": 32, "detections": {"threshold": 0.5, "distance": 3}},
    }
    plan = pipeline.plan(pipeline.load(told))
    assert plan.tasks < 25  # some blocks are left out
    assert pipeline.run(plan, "serial").complete
    found = pd.read_parquet(tmp_path / "o.zarr/_haloflow/tables/detections.parquet")
    assert found[["map_y", "map_x"]].to_numpy().tolist() == [[64, 32]]
