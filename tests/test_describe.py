"""A plan in words: what it says of a job."""

import re

import numpy as np
import pytest
import zarr

import pipeline

LAYERS = [
    {"type": "convolution", "features": ["f"]},
    {"type": "relu"},
    {"type": "pool", "window": 2, "stride": 2},
    {"type": "sigmoid"},
]


@pytest.mark.parametrize(
    ("kept", "kernel", "told"),
    [
        (["sigmoid"], "winograd", ["winograd", *["winograd, with convolution"] * 2, "numpy"]),
        (["relu", "sigmoid"], "winograd", ["winograd", "winograd, with convolution", "numpy", "numpy"]),
        (["sigmoid"], "numba", ["numba", "numba", "numba", "numpy"]),
    ],
)
def test_a_layer_that_another_ones_kernel_makes_is_told_with_it(tmp_path, kept, kernel, told):
    zarr.save_array(tmp_path / "i.zarr", np.zeros((16, 16), np.uint8))
    job = pipeline.load(
        {
            "input": {"images": str(tmp_path / "i.zarr")},
            "features": {"f": "#.#\n..#\n#.."},
            "layers": LAYERS,
            "output": {"store": str(tmp_path / "o.zarr"), "layers": kept},
        }
    )
    lines = str(pipeline.plan(job, kernel=kernel)).splitlines()
    rows = [re.split(r" {2,}", line.removeprefix("  layers").strip()) for line in lines]
    found = {row[0]: row[1] for row in rows if len(row) > 4}
    assert [found[layer["type"]] for layer in LAYERS] == told
