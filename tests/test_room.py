"""Rooms for maps: kernels that go by strips fill them with the numbers, the range and the pixels of `Room.take`."""

from dataclasses import replace

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.geometry import Interval, Pull, whole
from pipeline.given import Raw
from pipeline.kernels import kernel_for
from pipeline.kernels import numba as kernels
from pipeline.padded import scattered
from pipeline.pixels import Encoding, PixelScale
from pipeline.room import Room
from tests.test_kernels import convolution, other

ENCODINGS = [
    Encoding("float32"),
    Encoding("float16"),
    *(Encoding(dtype, -3.0, 7.5) for dtype in ("int8", "uint8", "int16", "uint16")),
]


def bits(numbers):
    return numbers.view(f"u{numbers.itemsize}")


def room_for(maps, encoding):
    """A room within a larger array of 3, and that array."""
    count, height, width = maps
    around = np.full((count + 1, height + 2, width + 5), 3, encoding.dtype)
    rows, columns = np.arange(1, height, 5), np.arange(0, width, 3)
    return Room(around[1:, 1:-1, 2:-3], encoding, rows, columns), around


@pytest.mark.parametrize("strip", [1, 2**13, 2**18])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.dtype)
@pytest.mark.parametrize("layers", ["whole", "with NaN", "no convolution"])
def test_strips_fill_a_room_as_maps_do(layers, encoding, strip, monkeypatch):
    monkeypatch.setattr(kernels, "_STRIP", strip)
    first = convolution(2, 3, (3, 4), match="sum")
    if layers == "with NaN":
        weights = first.arrays["weights"].copy()
        weights[1, 0, 0, 0] = np.nan
        first = replace(first, arrays={**first.arrays, "weights": weights})
    operations = (other("pool", 2),) if layers == "no convolution" else (first, other("relu"), other("pool"))
    kernel, scale = kernel_for(operations, "numba"), PixelScale("uint8")
    raw = np.random.default_rng(strip).integers(0, 255, (2, 67, 83), "u1", endpoint=True)
    maps = kernel(scale.to_map(raw))
    expected, _ = room_for(maps.shape, encoding)
    expected.take(maps)
    pulls = tuple(Pull(Interval(0, n), Interval(0, n), n) for n in raw.shape[1:])
    block = scattered(Raw([(whole(raw.shape[1:]), raw)], scale), pulls, operations[0])
    room, around = room_for(maps.shape, encoding)
    kernel(block, room=room)
    assert room.is_full
    assert (room.low, room.high) == (expected.low, expected.high)
    np.testing.assert_array_equal(bits(room.numbers), bits(expected.numbers))
    np.testing.assert_array_equal(room.pixels, expected.pixels)
    assert not np.array_equal(bits(room.numbers), np.full(room.numbers.shape, 3))
    room.numbers[...] = 3
    assert (around == 3).all()  # and nothing beside it was written


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("chunks", [1024, 1000])
def test_a_run_stores_strip_by_strip(dtype, chunks, tmp_path, monkeypatch):
    """Tiles that are write units or parts of them, at the edges and between; no map is there as a whole."""
    image = np.random.default_rng(1).integers(0, 255, (1, 2290, 2070), "u1")
    config = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "features": {"edge": {"rows": [[-1, 2], [3, 4]]}},
        "layers": [
            {"type": "convolution", "features": "edge", "padding": "same", "channels": "each"},
            {"type": "relu"},
            {"type": "pool", "window": 2},
        ],
        "output": {"store": str(tmp_path / "o.zarr"), "dtype": dtype, "chunks": chunks},
    }
    zarr.create_array(str(tmp_path / "i.zarr"), data=image, chunks=(1, 300, 300))
    plan = pipeline.plan(pipeline.load(config))
    (group,) = plan.images[0].task.groups
    assert [2 * chunks % n for n in group.tile] == [0, 0]
    with monkeypatch.context() as patched:
        patched.delattr(Encoding, "write")
        assert pipeline.run(plan, cluster="serial").complete
    assert pipeline.verify(pipeline.load(config)).passed


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_map_that_a_later_layer_looks_at_is_made_before_it_is_stored(dtype, tmp_path):
    image = np.random.default_rng(2).integers(0, 255, (120, 90), "u1")
    zarr.create_array(str(tmp_path / "i.zarr"), data=image, chunks=(50, 50))
    config = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "features": {"edge": {"rows": [[-1, 2], [3, 4]]}},
        "layers": [
            {"type": "convolution", "name": "match", "features": "edge", "padding": "same"},
            {"type": "pool", "window": 2},
        ],
        "output": {"store": str(tmp_path / "o.zarr"), "dtype": dtype, "layers": ["match", "pool"]},
    }
    job = pipeline.load(config)
    assert pipeline.run(pipeline.plan(job), cluster="serial").complete
    found = pipeline.verify(job)
    assert found.passed, str(found)
