"""Decisions: the same rows whatever the chunks, tasks and stops, from a maximum or an exact mean over whole planes."""

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate
from scipy.special import softmax

import pipeline
from pipeline.errors import ConfigError

Call = Callable[..., tuple[int, str, str]]

EDGE = [[-1.0, 0.5], [2.0, 0.25]]
VOTES = {"weights": {"X": [0.5, -1.0], "O": [-0.25, 2.0]}, "bias": {"X": 0.125, "O": -0.5}}


def config(folder: Path, op: str = "max", **output: Any) -> dict[str, Any]:
    return {
        "input": {"images": f"{folder}/*.zarr"},
        "features": {"edge": {"rows": EDGE}, "a": {"rows": [[1, 2, -4]]}, "b": {"rows": [[-3, 0.5, 1]]}},
        "layers": [
            {"type": "convolution", "features": "edge", "padding": "same", "boundary": "reflect"},
            {"type": "convolution", "name": "two", "features": ["a", "b"], "match": "sum"},
            {"type": "global_pool", "op": op},
            {"type": "vote", **VOTES},
            {"type": "softmax"},
        ],
        "output": {"store": f"{folder}/out", "decisions": {"format": "csv"}, **output},
    }


def store(folder: Path, name: str, image: np.ndarray, chunks: tuple[int, ...], **more: Any) -> None:
    zarr.create_array(f"{folder}/{name}.zarr", data=image, chunks=chunks, **more)


def rows(report: pipeline.Report) -> list[dict[str, str]]:
    with Path(report.tables[0]).open(newline="") as file:
        return list(csv.DictReader(file))


def run(job: Any, **given: Any) -> pipeline.Report:
    return pipeline.run(pipeline.plan(pipeline.load(job)), "serial", **given)


def by_scipy(image: np.ndarray, op: str) -> np.ndarray:
    padded = np.pad(image.astype(float), ((0, 1), (0, 1)), "reflect")
    first = correlate(padded, np.array(EDGE), mode="valid", method="direct") / 4
    maps = [correlate(first, np.array([row]), mode="valid", method="direct") for row in ([1, 2, -4], [-3, 0.5, 1])]
    pooled = np.array([getattr(values, op)() for values in maps])
    return softmax(np.array(list(VOTES["weights"].values())) @ pooled + np.array(list(VOTES["bias"].values())))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="haloflow-decisions-"))
    yield path
    shutil.rmtree(path)


sides = st.integers(3, 60)


@settings(max_examples=25, deadline=None)
@given(st.data(), sides, sides, st.sampled_from(["max", "mean"]), st.integers(0, 2**16))
def test_no_chunk_and_no_task_changes_a_bit(
    folder: Path, data: st.DataObject, height: int, width: int, op: str, seed: int
) -> None:
    here = Path(tempfile.mkdtemp(dir=folder))
    image = np.random.default_rng(seed).normal(0, 3, (height, width)).astype("f4")
    cuts = st.tuples(st.integers(2, height + 3), st.integers(2, width + 3))
    stored, made, lazy = data.draw(cuts), data.draw(cuts), data.draw(cuts)
    store(here, "image", image, stored)
    job = pipeline.load(config(here, op, chunks=list(made)))
    report = pipeline.run(pipeline.plan(job), "serial")
    whole = job.stack(image)
    assert whole.shape == (2, 1, 1)
    (row,) = rows(report)
    assert np.array([row["score_X"], row["score_O"]], "f4").tobytes() == whole.tobytes()
    assert row["class"] == ("X", "O")[int(whole.argmax())]
    with dask.config.set(scheduler="synchronous"):
        assert job.stack(da.from_array(image, chunks=lazy)).compute().tobytes() == whole.tobytes()
    np.testing.assert_allclose(whole.ravel(), by_scipy(image, op), rtol=0, atol=2e-5)


def test_the_table_is_the_same_to_the_byte_after_a_stop_and_for_other_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (90, 70)).astype("u1")
    for name in ("a", "b", "c"):
        store(tmp_path, name, image[: 30 + 20 * ord(name) % 60], (16, 16))
    first = run(config(tmp_path, "mean", chunks=16))
    told = Path(first.tables[0]).read_bytes()
    run(config(tmp_path, "mean", chunks=64), overwrite=True)
    assert Path(first.tables[0]).read_bytes() == told
    # Taken from the records alone: without a task, and after some.
    Path(first.tables[0]).unlink()
    plan = pipeline.plan(pipeline.load(config(tmp_path, "mean", chunks=16)))
    monkeypatch.setattr("pipeline.execute.course.tables.finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipeline.run(plan, "serial", overwrite=True)
    monkeypatch.undo()
    again = pipeline.run(plan, "serial", resume=True)
    assert again.resumed == again.tasks
    assert Path(again.tables[0]).read_bytes() == told
    assert again.decided == first.decided


def test_space_that_is_not_stored_counts_like_what_is(tmp_path: Path) -> None:
    image = np.zeros((200, 200), "u1")
    image[3:60, 5:50] = np.random.default_rng(2).integers(0, 256, (57, 45))
    array = zarr.create_array(f"{tmp_path}/sparse.zarr", shape=image.shape, chunks=(25, 25), dtype="u1")
    array[:75, :50] = image[:75, :50]
    job = pipeline.load(config(tmp_path, "mean", chunks=25))
    report = pipeline.run(pipeline.plan(job), "serial")
    whole = job.stack(image).ravel()
    assert [float(rows(report)[0][f"score_{name}"]) for name in "XO"] == [float(n) for n in whole]


def test_every_plane_is_decided_and_nan_decides_nothing(tmp_path: Path) -> None:
    planes = np.random.default_rng(3).normal(size=(3, 20, 30)).astype("f4")
    planes[1, 4, 5] = np.nan
    store(tmp_path, "stack", planes, (1, 8, 8), dimension_names=("z", "y", "x"))
    job = pipeline.load(config(tmp_path))
    report = pipeline.run(pipeline.plan(job), "serial")
    made = rows(report)
    assert [row["z"] for row in made] == ["0", "1", "2"]
    for row, plane in zip(made, planes, strict=True):
        scores = job.stack(plane).ravel()
        assert row["class"] == ("" if np.isnan(scores).any() else "XO"[int(scores.argmax())])
    assert report.decided is not None
    assert report.decided.classes[""] == 1
    assert "stack, z 1: undecided (X nan, O nan)" in str(report)


def test_a_batch_is_told_in_few_lines_and_in_json(tmp_path: Path, haloflow: Call) -> None:
    draw = np.random.default_rng(4)
    for n in range(23):
        store(tmp_path, f"i{n:02}", draw.integers(0, 256, (9, 9)).astype("u1"), (9, 9))
    written = config(tmp_path, decisions={"format": "parquet"})
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(written))
    code, out, _ = haloflow("plan", str(path))
    assert code == 0
    assert "for decisions, by global_pool, vote, softmax at the end of the run" in out
    code, out, err = haloflow("run", str(path), "--cluster", "serial")
    assert code == 0, err
    assert "decided: 23 planes of images: " in out
    assert "  i00: " in out
    assert "  and 3 more: see the table" in out
    assert "i20" not in out
    code, out, err = haloflow("run", str(path), "--cluster", "serial", "--overwrite", "--json")
    assert code == 0, err
    decided = json.loads(out.splitlines()[-1])["decided"]
    assert decided["rows"] == 23
    assert sum(decided["classes"].values()) == 23
    assert len(decided["first"]) == 20
    assert decided["first"][0]["path"].endswith("i00.zarr")
    assert haloflow("verify", str(path))[0] == 0
    assert not list((tmp_path / "out").glob("i*/*/0/c"))  # no map is stored


def test_local_maps_may_be_kept_beside(tmp_path: Path) -> None:
    image = np.random.default_rng(5).integers(0, 256, (40, 40)).astype("u1")
    store(tmp_path, "a", image, (16, 16))
    job = pipeline.load(config(tmp_path, layers=["two"], chunks=16))
    report = pipeline.run(pipeline.plan(job), "serial")
    kept = zarr.open_array(f"{tmp_path}/out/a/two/0")[:]
    assert kept.tobytes() == job.stack(image, layer="two").tobytes()
    assert float(rows(report)[0]["score_X"]) == float(job.stack(image)[0, 0, 0])


def test_a_data_array_gives_one_pixel_in_the_middle() -> None:
    xr = pytest.importorskip("xarray")
    image = np.random.default_rng(6).normal(size=(11, 21)).astype("f4")
    given = xr.DataArray(image, dims=("y", "x"), coords={"y": 2.0 * np.arange(11), "x": np.arange(21)})
    job = pipeline.load(config(Path("nowhere")))
    made = job.stack(given)
    assert made.shape == (2, 1, 1)
    assert made.feature.values.tolist() == ["X", "O"]
    assert (made.y.item(), made.x.item()) == (10.0, 10.0)
    np.testing.assert_array_equal(made.values, job.stack(image))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"output": {"store": "s", "layers": ["vote"]}},
            "output.layers: 'vote' makes one pixel of each whole map: it goes to the table of decisions",
        ),
        (
            {"output": {"store": "s", "detections": {"layer": "softmax", "threshold": 0.5}}},
            "output.detections.layer: 'softmax' makes one pixel",
        ),
        ({"output": {"store": "s", "decisions": {"format": "geojson"}}}, "output.decisions.format: 'geojson'"),
        ({"layers": [{"type": "global_pool"}]}, "layers[0]: 'global_pool' joins the maps of the layer before it"),
    ],
)
def test_what_cannot_be_decided_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        pipeline.load(config(tmp_path) | change)
    assert words in str(refused.value)


def test_an_image_whose_layers_end_with_other_maps_is_named_and_leaves_the_others(tmp_path: Path) -> None:
    store(tmp_path, "a", np.arange(30, dtype=np.uint8).reshape(5, 6), (3, 3))
    store(tmp_path, "b", np.arange(60, dtype=np.uint8).reshape(2, 5, 6), (1, 3, 3))
    each = config(tmp_path)
    each["layers"] = [{"type": "convolution", "features": ["a", "b"], "channels": "each"}, {"type": "global_pool"}]
    report = run(each)
    assert [row["image"] for row in rows(report)] == ["a"]
    (failure,) = report.failures
    assert "its layers end with the maps 0.a, 0.b, 1.a, 1.b and those of the first image with a, b" in failure["reason"]
