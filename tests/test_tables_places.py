"""Where rows of tables lie: amid the pixels that a pixel of a map was made of, those beyond the image left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr

import pipeline
from pipeline.storage.metadata import Placed, Window, describe

EDGE = {"type": "convolution", "name": "edge", "features": "edge", "match": "sum"}
SAME = {**EDGE, "name": "same", "features": "wide", "padding": "same"}


def pool(window: int, stride: int, **more: Any) -> dict[str, Any]:
    return {"type": "pool", "window": window, "stride": stride, **more}


def middles(extent: int, layers: list[dict[str, Any]]) -> np.ndarray:
    """Where the pixels of the last map lie: amid the first and the last input pixel, layer by layer.

    Padding counts as pixels that go on in the map's steps.
    """
    low, high, step = np.arange(extent), np.arange(extent), 1
    for layer in layers:
        if "padding" in layer:
            low, high = np.r_[low[0] - step, low[:-1]], np.r_[high[1:], high[-1] + step]
        elif layer["type"] == "convolution":
            low, high = low[:-1], high[1:]
        else:
            n, (window, stride) = len(low), (layer["window"], layer["stride"])
            starts = [s for s in range(0, n, stride) if s + window <= n]
            if layer.get("partial") != "drop" and starts[-1] + window < n and starts[-1] + stride < n:
                starts.append(starts[-1] + stride)
            low, high = low[starts], high[[min(s + window, n) - 1 for s in starts]]
            step *= stride
    return (low + high) / 2


STACKS: dict[str, list[dict[str, Any]]] = {
    "halves": [pool(2, 2)],
    "large": [pool(7, 7)],
    "overlapping": [pool(5, 2)],
    "with gaps": [pool(2, 5)],
    "twice": [EDGE, pool(3, 3), pool(4, 4)],
    "padded after": [pool(7, 7), SAME],
    "padded before": [SAME, pool(4, 4)],
    "dropped": [pool(7, 7, partial="drop")],
}


@pytest.mark.parametrize("extent", [30, 36, 38, 41])
@pytest.mark.parametrize("stack", STACKS)
def test_every_row_lies_amid_its_pixels_and_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: str, extent: int
) -> None:
    monkeypatch.chdir(tmp_path)
    level = Placed("0", (1.0, 0.25, 3.0), (0.0, 10.0, -7.0))
    axes = [("c", None), ("y", None), ("x", None)]
    group = zarr.create_group("i.zarr", attributes=describe("i", axes, [level], ["a"], [Window.of(0, 1)]))
    rising = np.arange(extent, dtype=np.float32) ** 2
    group.create_array("0", data=rising[:, None] + rising + np.zeros((1, 1, 1), "f4"), chunks=(1, 16, 16))
    told = {
        "input": {"images": "i.zarr"},
        "features": {"edge": {"rows": [[0, 1], [1, 0]]}, "wide": {"rows": [[0, 0, 0], [0, 1, 0], [0, 0, 0]]}},
        "layers": STACKS[stack],
        "output": {"store": "o.zarr", "detections": {"threshold": -9e9}, "summaries": {}},
    }
    job = pipeline.load(told)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    expected = middles(extent, STACKS[stack])
    (peak,) = pd.read_parquet("o.zarr/_haloflow/tables/detections.parquet").to_dict("records")
    (row,) = pd.read_parquet("o.zarr/_haloflow/tables/summaries.parquet").to_dict("records")
    assert peak["map_y"] == peak["map_x"] == len(expected) - 1
    for place in ((peak["y"], peak["x"]), (row["max_y"], row["max_x"])):
        assert place == (expected[-1], expected[-1])
        assert max(place) <= extent - 1
    for world in ((peak["world_y"], peak["world_x"]), (row["max_world_y"], row["max_world_x"])):
        assert world == pytest.approx((10 + 0.25 * expected[-1], -7 + 3 * expected[-1]), abs=1e-9)
    assert pipeline.verify(job).passed
