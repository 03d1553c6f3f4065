"""Memory: what a task holds stays under its forecast, and a process under its bound however large the image is."""

import importlib.util
import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

import pipeline
from pipeline.kernels import BACKENDS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("memory", ROOT / "scripts/memory.py")
assert spec is not None
assert spec.loader is not None
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)

RNG = np.random.default_rng(3)


def features(count: int, *shape: int) -> dict[str, Any]:
    return {f"f{n}": {"rows": RNG.normal(size=shape).tolist()} for n in range(count)}


def convolution(count: int, **more: Any) -> dict[str, Any]:
    return {"type": "convolution", "features": [f"f{n}" for n in range(count)], **more}


STACKS: dict[str, dict[str, Any]] = {
    "narrow": {"features": features(3, 3, 3), "layers": [convolution(3), {"type": "relu"}, {"type": "pool"}]},
    "wide": {
        "features": features(16, 5, 5),
        "layers": [
            convolution(16),
            {"type": "relu"},
            convolution(16, match="sum"),
            {"type": "pool", "stride": 4},
        ],
    },
    "large feature": {"features": features(2, 61, 61), "layers": [convolution(2)]},
    "no convolution": {"layers": [{"type": "normalise", "scale": 2.0}, {"type": "pool", "op": "mean"}]},
    "whole maps kept": {"features": features(8, 3, 3), "layers": [convolution(8, padding="same")]},
    "separable": {
        "features": {"f0": {"rows": np.outer(np.hanning(43)[1:-1], np.hanning(43)[1:-1]).tolist()}},
        "layers": [convolution(1, padding="same", boundary="nearest")],
    },
    "two maps kept": {
        "features": features(4, 3, 3),
        "layers": [convolution(4, name="match"), {"type": "relu"}, {"type": "pool"}],
        "output": {"layers": ["match", "pool"]},
    },
    "int8": {
        "features": features(3, 5, 5),
        "layers": [convolution(3), {"type": "pool", "op": "mean", "window": 3}],
        "output": {"dtype": "int8"},
    },
    "many maps": {"features": features(64, 3, 3), "layers": [convolution(64), {"type": "pool", "stride": 8}]},
    "shards and a pyramid": {
        "features": features(3, 3, 3),
        "layers": [convolution(3), {"type": "pool"}],
        "output": {"chunks": 256, "shards": 1024, "pyramid": "mean", "dtype": "float16"},
    },
    "tables and no maps": {
        "features": features(3, 3, 3),
        "layers": [convolution(3)],
        "output": {
            "detections": {"threshold": 0.1, "distance": 20},
            "summaries": {"histogram": {"range": [-1, 1]}},
        },
    },
    "one tall block": {"features": features(1, 3, 3), "layers": [convolution(1)], "output": {"chunks": 3000}},
}


LONG = ("separable", "no convolution", "two maps kept", "int8", "many maps")
"""Those whose like is in the others."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in STACKS]
)
def test_a_worker_holds_no_more_than_the_forecast_and_at_least_half_of_it(tmp_path: Path, name: str) -> None:
    pixels = RNG.integers(0, 256, (3000, 3000)).astype(np.uint8)
    zarr.create_array(str(tmp_path / "image.zarr"), data=pixels, chunks=(512, 512))
    forecast, worker = held(tmp_path, STACKS[name])
    assert forecast / 2 <= worker <= forecast


def test_strips_of_many_channels_under_a_large_window_are_forecast(tmp_path: Path) -> None:
    pixels = np.broadcast_to(RNG.integers(0, 256, (640, 640)).astype(np.uint8), (200, 640, 640))
    zarr.create_array(str(tmp_path / "image.zarr"), data=pixels, chunks=(200, 128, 128))
    forecast, worker = held(tmp_path, {"layers": [{"type": "pool", "window": 64, "stride": 64}]})
    assert forecast / 2 <= worker <= forecast


def held(folder: Path, stack: dict[str, Any]) -> tuple[int, int]:
    """Return the forecast for a run over ``image.zarr`` in a folder, and the most bytes that its one worker held."""
    config = {"input": {"images": "image.zarr"}, **stack}
    config["output"] = {"store": "maps.zarr", **config.get("output", {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    haloflow = [sys.executable, "-m", "pipeline.cli"]
    done = subprocess.run(
        [*haloflow, "plan", "config.yaml", "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    _, found, _ = memory.peaks([*haloflow, "run", "config.yaml", "--workers", "1", "--quiet"], folder)
    return json.loads(done.stdout)["peak_memory"], max(peak for process, peak in found.items() if process != "main")


def test_a_large_tiff_is_ingested_and_run_in_little_memory(tmp_path: Path) -> None:
    """The short form of scripts/memory.py, whose long form takes 20,000 × 20,000 pixels."""
    words = [sys.executable, ROOT / "scripts/memory.py", "--side", "6000", "--folder", tmp_path]
    done = subprocess.run([*words, "--limit", "700"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("together", [1, 3], ids=["a chunk a channel", "channels in one chunk"])
def test_bytes_read_count_every_channel_and_every_chunk_that_a_halo_touches(tmp_path: Path, together: int) -> None:
    stored = zarr.create_array(str(tmp_path / "i.zarr"), shape=(3, 64, 48), chunks=(together, 16, 16), dtype="uint16")
    stored[:] = 1
    job = pipeline.load(
        {
            "input": {"images": str(tmp_path / "i.zarr")},
            "features": {"edge": {"rows": [[1, 2, 3]] * 3}},
            "layers": [{"type": "convolution", "features": "edge"}],
            "output": {"store": str(tmp_path / "o.zarr"), "chunks": 16},
        }
    )
    image = pipeline.plan(job).images[0]
    image = replace(image, grid=replace(image.grid, step=(16, 16)), cache=0)
    # Blocks of 16 read 18: two chunks each but the last; rows 32 + 32 + 32 + 16, columns 32 + 32 + 16.
    assert image.bytes_read == 112 * 80 * 3 * 2
    # Where a worker keeps what blocks share, each chunk counts once.
    assert replace(image, cache=2**20).bytes_read == 64 * 48 * 3 * 2
    assert replace(image, cache=2**20).peak_memory >= image.peak_memory + 2**20
    assert image.block_memory > 18 * 18 * 3 * 2


def test_the_plan_refuses_what_does_not_fit(small: Path, haloflow: Any) -> None:
    zarr.create_array("image.zarr", shape=(20000, 20000), chunks=(20000, 20000), dtype="uint8", overwrite=True)
    code, _, err = haloflow("plan", "config.yaml", "--memory", "800MB")
    assert code == 2
    assert "image.zarr: a worker would need" in err
    assert "chunks of 20000 × 20000" in err
    code, out, _ = haloflow("plan", "config.yaml", "--memory", "8GB", "--json")
    assert code == 0
    assert json.loads(out)["peak_memory"] > 800e6


def test_the_weights_of_all_layers_stay_and_are_forecast(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "i.zarr", data=np.zeros((200, 200), np.uint8), chunks=(64, 64))
    named = {f"f{n}": {"rows": RNG.normal(size=(3, 3)).tolist()} for n in range(128)}

    told = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "features": named,
        "layers": [convolution(128)] * 5,
        "output": {"store": str(tmp_path / "o.zarr"), "chunks": 64},
    }
    image = pipeline.plan(pipeline.load(told)).images[0]
    operation, choice = image.stack.operations[1], image.stack.choices[1]
    assert choice.backend == "winograd"
    tracemalloc.start()
    kernel = BACKENDS[choice.backend].build((operation,))
    each = tracemalloc.get_traced_memory()[0] + operation.arrays["weights"].nbytes
    tracemalloc.stop()
    assert callable(kernel)
    (group,) = image.task.groups
    assert 4 * each <= image.task.held - group.work.scratch <= 6 * each
