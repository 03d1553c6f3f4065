"""Empty space: what is only fill value is neither read, computed nor written, and the result is the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.storage.images import open_image
from pipeline.storage.stored import stored_chunks, unit

RNG = np.random.default_rng(17)
EDGE = {"edge": {"rows": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]}}
UNLIKE = {"edge": EDGE["edge"], "blob": {"rows": [[1, 2, 1], [2, 5, 2], [1, 2, 1]]}}
BROAD = {"broad": {"rows": (RNG.permutation(31 * 33).reshape(31, 33) - 500.0).tolist()}}
VALID = [{"type": "convolution", "features": "edge"}, {"type": "relu"}, {"type": "pool"}]
SAME = [{"type": "convolution", "features": "edge", "padding": "same", "fill": 0.5}, {"type": "pool", "window": 3}]

CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    "valid": (EDGE, VALID, {}),
    "edges of a padded map": (EDGE, SAME, {}),
    "a bright background": (EDGE, VALID, {"fill_value": 200}),
    "nan": (EDGE, VALID, {"dtype": "float32", "fill_value": np.nan}),
    "sharded": (EDGE, VALID, {"shards": (64, 64)}),
    "v2": (EDGE, VALID, {"zarr_format": 2}),
    "maps that differ in empty space": (UNLIKE, [{"type": "convolution", "features": ["edge", "blob"]}], {}),
    "a large feature": (BROAD, [{"type": "convolution", "features": "broad"}], {}),
}


def sparse(path: Path, shape: tuple[int, int] = (500, 700), **given: Any) -> np.ndarray:
    """Store an image of few chunks, one in the middle and one at the end, and return it whole."""
    array = zarr.create_array(str(path), shape=shape, chunks=(32, 32), **{"dtype": "uint8", "fill_value": 0, **given})
    for rows, columns in ((slice(200, 240), slice(300, 320)), (slice(490, 500), slice(690, 700))):
        shape = array[rows, columns].shape
        array[rows, columns] = RNG.integers(1, 200, shape).astype(array.dtype)
    return array[:]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("encoding", [{"dtype": "float32"}, {"dtype": "int8", "range": [-4.0, 4.0]}])
def test_a_sparse_image_gives_the_bits_of_the_whole(tmp_path: Path, case: str, encoding: dict[str, Any]) -> None:
    features, layers, stored = CASES[case]
    image = sparse(tmp_path / "i.zarr", **stored)
    config = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "features": features,
        "layers": layers,
        "output": {"store": str(tmp_path / "o.zarr"), "chunks": 32, **encoding},
    }
    job = pipeline.load(config)
    plan = pipeline.plan(job)
    assert pipeline.run(plan, "serial").complete
    kept = plan.images[0].kept[0].array
    made = zarr.open_array(f"{tmp_path}/o.zarr/{kept.group}/0")
    expected = kept.encoding.encode(job.stack(image))
    np.testing.assert_array_equal(made[:].view("u1"), expected.view("u1"))
    assert pipeline.verify(job).passed
    images = plan.images[0]
    if case == "maps that differ in empty space":
        assert images.seeing is None
        assert made.nchunks_initialized < made.nchunks  # the map that is all fill value there
    else:
        assert len(images.blocks) < len(images.grid) / 2
        assert made.nchunks_initialized < made.nchunks / 2


def test_the_plan_says_how_many_blocks_are_empty_and_forecasts_only_the_others(tmp_path: Path) -> None:
    for name in ("sparse", "full"):
        sparse(tmp_path / f"{name}.zarr")
    array = zarr.open_array(str(tmp_path / "full.zarr"))
    array[:] = 1
    plans = [
        pipeline.plan(
            pipeline.load(
                {
                    "input": {"images": str(tmp_path / f"{name}.zarr")},
                    "features": EDGE,
                    "layers": VALID,
                    "output": {"store": str(tmp_path / "o.zarr"), "chunks": 32},
                }
            )
        )
        for name in ("sparse", "full")
    ]
    few, all_of_them = (plan.images[0] for plan in plans)
    assert few.bytes_read < all_of_them.bytes_read / 2
    assert few.bytes_written < all_of_them.bytes_written / 2
    assert "more blocks see only the fill value" in str(plans[0])
    assert "fill value" not in str(plans[1])
    assert all_of_them.background == ()


def test_an_image_without_a_single_chunk_is_done_at_once(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "i.zarr"), shape=(10**6, 10**6), chunks=(1024, 1024), dtype="uint8")
    job = pipeline.load(
        {
            "input": {"images": str(tmp_path / "i.zarr")},
            "features": EDGE,
            "layers": [VALID[0], {"type": "pool", "partial": "drop"}],
            "output": {"store": str(tmp_path / "o.zarr")},
        }
    )
    report = pipeline.run(pipeline.plan(job), "serial")
    assert report.complete
    assert report.tasks == 0
    assert pipeline.verify(job).passed


def test_stored_chunks_are_those_that_hold_data(tmp_path: Path) -> None:
    sparse(tmp_path / "i.zarr")
    source = open_image(str(tmp_path / "i.zarr"))
    assert stored_chunks(source) == {0: {(6, 9), (7, 9), (15, 21)}}
    assert unit(source) == (32, 32)
    sparse(tmp_path / "s.zarr", shards=(64, 96))
    source = open_image(str(tmp_path / "s.zarr"))
    assert stored_chunks(source) == {0: {(3, 3), (7, 7)}}
    assert unit(source) == (64, 96)
    channels = zarr.create_array(str(tmp_path / "c.zarr"), shape=(3, 64, 64), chunks=(1, 32, 32), dtype="uint8")
    channels[2, 40, 3] = 1
    assert stored_chunks(open_image(str(tmp_path / "c.zarr"))) == {0: {(1, 0)}}
