"""Empty space: what is only fill value is neither read, computed nor written, and the result is the same."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

import pipeline
from pipeline.errors import InputError
from pipeline.storage.images import open_image
from pipeline.storage.stored import list_chunks, unit

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
    "minus zero": ({}, [{"type": "leaky_relu"}], {"dtype": "float32", "fill_value": -0.0}),
    "sharded": (EDGE, VALID, {"shards": (64, 64)}),
    "v2": (EDGE, VALID, {"zarr_format": 2}),
    "maps that differ in empty space": (UNLIKE, [{"type": "convolution", "features": ["edge", "blob"]}], {}),
    "a large feature": (BROAD, [{"type": "convolution", "features": "broad"}], {}),
}

ZEROS = {"minus": -0.0, "plain": 0.0}


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


def test_a_fill_value_of_minus_zero_is_no_plain_zero(tmp_path: Path) -> None:
    """What is planned for one image of a batch is not for another that differs in the sign of zero alone."""
    images = {name: sparse(tmp_path / f"{name}.zarr", dtype="float32", fill_value=f) for name, f in ZEROS.items()}
    config = {
        "input": {"images": str(tmp_path / "*.zarr")},
        "layers": [{"type": "leaky_relu"}],
        "output": {"store": str(tmp_path / "out" / "maps.zarr"), "chunks": 32},
    }
    job = pipeline.load(config)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    for name, image in images.items():
        made = zarr.open_array(f"{config['output']['store']}/{name}/leaky_relu/0")[:]
        np.testing.assert_array_equal(made.view("u4"), job.stack(image).view("u4"))


def test_pixels_that_only_equal_the_fill_value_are_no_background(tmp_path: Path) -> None:
    image = np.zeros((320, 320), np.float32)
    image[100:200, 100:200] = -0.0
    kept = {"write_empty_chunks": True}
    array = zarr.create_array(
        str(tmp_path / "i.zarr"), shape=image.shape, chunks=(32, 32), dtype="float32", fill_value=0, config=kept
    )
    array[96:224, 96:224] = image[96:224, 96:224]
    config = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "layers": [{"type": "leaky_relu"}],
        "output": {"store": str(tmp_path / "o.zarr"), "chunks": 32},
    }
    job = pipeline.load(config)
    plan = pipeline.plan(job)
    assert plan.images[0].background
    assert pipeline.run(plan, "serial").complete
    made = zarr.open_array(f"{tmp_path}/o.zarr/i/leaky_relu/0")[:]
    np.testing.assert_array_equal(np.signbit(made), np.signbit(image)[None])
    np.testing.assert_array_equal(made.view("u4"), job.stack(image).view("u4"))


@pytest.mark.parametrize("case", ["valid", "edges of a padded map", "a bright background", "nan", "v2"])
def test_what_viewers_are_shown_does_not_depend_on_what_was_left_out(tmp_path: Path, case: str) -> None:
    features, layers, stored = CASES[case]
    image = sparse(tmp_path / "sparse.zarr", **stored)
    full = {"compressors": None, "config": {"write_empty_chunks": True}}
    zarr.create_array(str(tmp_path / "full.zarr"), data=image, chunks=(32, 32), **full)
    shown = []
    for name in ("sparse", "full"):
        job = pipeline.load(
            {
                "input": {"images": str(tmp_path / f"{name}.zarr")},
                "features": features,
                "layers": layers,
                "output": {"store": str(tmp_path / f"{name}.maps"), "chunks": 32},
            }
        )
        plan = pipeline.plan(job)
        assert (plan.images[0].seeing is None) == (name == "full")
        assert pipeline.run(plan, "serial").complete
        attributes = zarr.open_group(f"{tmp_path}/{name}.maps/{plan.images[0].kept[0].array.group}").attrs
        shown.append(attributes["ome"]["omero"]["channels"])
    assert shown[0] == shown[1]


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
    assert list_chunks(source).stored == {0: {(6, 9), (7, 9), (15, 21)}}
    assert unit(source) == (32, 32)
    sparse(tmp_path / "s.zarr", shards=(64, 96))
    source = open_image(str(tmp_path / "s.zarr"))
    assert list_chunks(source).stored == {0: {(3, 3), (7, 7)}}
    assert unit(source) == (64, 96)
    channels = zarr.create_array(str(tmp_path / "c.zarr"), shape=(3, 64, 64), chunks=(1, 32, 32), dtype="uint8")
    channels[2, 40, 3] = 1
    assert list_chunks(open_image(str(tmp_path / "c.zarr"))).stored == {0: {(1, 0)}}


def _lacking(folder: Path, *gone: str, missing: str = "fill") -> dict[str, Any]:
    """Return a config of an image of 3 × 2 chunks of noise, some of which are gone."""
    array = zarr.create_array(str(folder / "i.zarr"), shape=(90, 60), chunks=(32, 32), dtype="uint8", fill_value=7)
    array[:] = RNG.integers(1, 200, (90, 60))
    for key in gone:
        (folder / "i.zarr" / "c" / key).unlink()
    return {
        "input": {"images": str(folder / "i.zarr"), "missing": missing},
        "features": EDGE,
        "layers": VALID,
        "output": {"store": str(folder / "o.zarr")},
    }


def test_missing_chunks_are_the_fill_value_and_are_counted(tmp_path: Path) -> None:
    job = pipeline.load(_lacking(tmp_path, "0/1", "2/0"))
    plan = pipeline.plan(job)
    assert plan.images[0].missing == plan.to_dict()["images"][0]["missing_chunks"] == 2
    assert "missing   2 chunks are not stored: the fill value, 7" in str(plan)
    report = pipeline.run(plan, "serial")
    assert report.complete
    assert report.missing_chunks == 2
    assert "2 chunks of the input are not stored" in str(report)
    pixels = zarr.open_array(tmp_path / "i.zarr")[:]
    assert (pixels[:32, 32:] == 7).all()
    made = zarr.open_array(tmp_path / "o.zarr/i/pool/0")[:]
    np.testing.assert_array_equal(made, job.stack(pixels))
    again = pipeline.run(pipeline.plan(job), "serial", resume=True)
    assert (again.resumed, again.missing_chunks) == (report.tasks, 2)


def test_what_only_looks_like_a_chunk_is_none(tmp_path: Path) -> None:
    config = _lacking(tmp_path, "0/1")
    for name in ("c/0/01", "old/0/1", "c/00/1"):
        (tmp_path / "i.zarr" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "i.zarr" / name).write_bytes(b"litter")
    plan = pipeline.plan(pipeline.load(config))
    assert plan.images[0].missing == 1
    assert pipeline.run(plan, "serial").complete


def test_of_a_whole_image_none_is_missing(tmp_path: Path) -> None:
    plan = pipeline.plan(pipeline.load(_lacking(tmp_path, missing="error")))
    assert plan.images[0].missing == 0
    assert "missing" not in str(plan)
    assert "not stored" not in str(pipeline.run(plan, "serial"))


@pytest.mark.parametrize("shards", [None, (64, 32)])
def test_a_chunk_that_goes_while_the_run_reads_is_no_fill_value(tmp_path: Path, shards: tuple[int, int] | None) -> None:
    config = _lacking(tmp_path)
    values = zarr.open_array(tmp_path / "i.zarr")[:]
    image = zarr.create_array(
        str(tmp_path / "i.zarr"), data=values, chunks=(32, 32), shards=shards, fill_value=7, overwrite=True
    )
    plan = pipeline.plan(pipeline.load(config))
    (tmp_path / "i.zarr/c/1/1").rename(tmp_path / "away")
    report = pipeline.run(plan, "serial")
    assert not report.complete
    assert re.search(
        r"a chunk is damaged or missing \(FileNotFoundError: .*i\.zarr/c/1/1", report.failures[0]["reason"]
    )
    (tmp_path / "away").rename(tmp_path / "i.zarr/c/1/1")
    job = pipeline.load(config)
    assert pipeline.run(pipeline.plan(job), "serial", resume=True).complete
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "o.zarr/i/pool/0")[:], job.stack(image[:]))


def test_missing_chunks_are_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    job = pipeline.load(_lacking(tmp_path, "0/1", "2/0", missing="error"))
    with pytest.raises(InputError, match=r"i\.zarr: 2 of its 6 chunks are not stored.*input\.missing"):
        pipeline.plan(job)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_the_command_line_refuses_missing_chunks(
    tmp_path: Path, haloflow: Callable[..., tuple[int, str, str]], verb: str
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(_lacking(tmp_path, "1/1")))
    code, _, err = haloflow(verb, str(tmp_path / "config.yaml"), "--missing", "error")
    assert code == 2
    assert "1 of its 6 chunks are not stored" in err
    assert not (tmp_path / "o.zarr").exists()


def test_only_missing_chunks_that_are_read_count(tmp_path: Path) -> None:
    store = zarr.create_array(
        str(tmp_path / "i.zarr"), shape=(4, 64, 64), chunks=(2, 32, 32), dtype="uint8", fill_value=0
    )
    store[2:] = 1  # channels 0 and 1 are not stored
    config = {
        "input": {"images": str(tmp_path / "i.zarr"), "channels": [1, 3], "region": {"y": [0, 20], "x": [0, 64]}},
        "features": {"edge": {"rows": [[[1, 2]], [[3, 4]]]}},
        "layers": [{"type": "convolution", "features": "edge"}],
        "output": {"store": str(tmp_path / "o.zarr")},
    }
    assert pipeline.plan(pipeline.load(config)).images[0].missing == 2


def test_what_decides_no_bits_does_not_hinder_a_resume(tmp_path: Path) -> None:
    report = pipeline.run(pipeline.plan(pipeline.load(_lacking(tmp_path))), "serial")
    shutil.rmtree(tmp_path / "i.zarr")
    strict = pipeline.plan(pipeline.load(_lacking(tmp_path, missing="error")))
    assert pipeline.run(strict, "serial", resume=True).resumed == report.done
