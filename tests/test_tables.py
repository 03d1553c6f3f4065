"""Tables of detections: the same rows whatever the chunks, tasks, workers and stops, each peak once, in its place."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr

import pipeline
from pipeline.execute import task
from pipeline.storage.findings import findings
from pipeline.storage.identity import digest
from pipeline.storage.place import Place
from tests.conftest import ROOT
from tests.test_tables_peaks import brute

SIZE = (211, 190)
FEATURES = {"edge": {"rows": [[-1, 2, 1], [3, -4, 1]]}, "blob": {"rows": [[1, 2, 1], [1, -2, -1]]}}
LAYERS = [
    {"type": "convolution", "name": "match", "features": ["edge", "blob"], "padding": "same", "boundary": "reflect"},
    {"type": "pool", "name": "pooled", "window": 3, "stride": 2},
]
DETECTIONS = {"layer": "match", "threshold": 0.2, "distance": 5, "refine": True}


def config(store: str = "o.zarr", **output: Any) -> dict[str, Any]:
    return {
        "input": {"images": "i.zarr"},
        "features": FEATURES,
        "layers": LAYERS,
        "output": {"store": store, "detections": DETECTIONS, **output},
    }


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """An image of few values, so that many pixels of its maps are equal; the working directory has it as i.zarr."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(7).choice(np.array([0, 90, 255], np.uint8), SIZE)
    zarr.create_array("i.zarr", data=pixels, chunks=(64, 48))
    return pixels


def table(form: str = "parquet", store: str = "o.zarr") -> bytes:
    return Path(f"{store}/_haloflow/tables/detections.{form}").read_bytes()


def read(store: str = "o.zarr") -> pd.DataFrame:
    return pd.read_parquet(f"{store}/_haloflow/tables/detections.parquet")


def rows_of(told: pd.DataFrame) -> list[tuple[int, int, str]]:
    return list(zip(told["map_y"], told["map_x"], told["feature"], strict=True))


def whole(job: pipeline.Job, image: np.ndarray, layer: str) -> np.ndarray:
    return job.stack(image, layer)  # noqa: PD013 - not pandas'


def expected(job: pipeline.Job, image: np.ndarray) -> list[tuple[int, int, str]]:
    found = brute(whole(job, image, "match"), 0.2, 5)
    return [(y, x, ("edge", "blob")[c]) for y, x, c in found]


CHUNKINGS: list[dict[str, Any]] = [
    {"chunks": 16},
    {"chunks": [17, 64]},
    {"chunks": [211, 16]},
    {"chunks": 31},
    {"chunks": 64},
    {"chunks": [100, 37]},
    {"chunks": 97},
    {"chunks": 500},
    {"chunks": 16, "shards": 64},
    {"chunks": [8, 32], "shards": [64, 96], "layers": ["pooled", "match"], "dtype": "uint8"},
    {"chunks": 24, "layers": ["pooled"], "pyramid": "mean"},
]


def test_the_table_is_the_same_for_every_chunking_and_that_of_the_definition(
    image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = set()
    for number, chunks in enumerate(CHUNKINGS):
        job = pipeline.load(config(**chunks))
        with monkeypatch.context() as patch:
            if number % 2:
                patch.setattr("pipeline.planner.TASK_PIXELS", 0)  # a task for each write unit
            plan = pipeline.plan(job)
        report = pipeline.run(plan, "threads" if number in (3, 8) else "serial", 2, overwrite=True)
        assert report.complete
        assert report.tables == ("o.zarr/_haloflow/tables/detections.parquet",)
        made.add(table())
    assert len(made) == 1
    told = read()
    assert rows_of(told) == expected(job, image)
    assert len(told) > 100
    maps = whole(job, image, "match")
    for row in told.itertuples():
        assert row.score == maps[int(row.feature == "blob"), row.map_y, row.map_x]
        # The window of 2 × 3 is padded by one column before and after, and one row after.
        assert abs(row.y - (row.map_y + 0.5)) <= 0.5
        assert abs(row.x - row.map_x) <= 0.5
        assert (row.world_y, row.world_x) == pytest.approx((row.y, row.x), abs=1e-9)
    assert (told["y"] - told["map_y"] - 0.5).abs().max() > 0.1


def test_matches_on_corners_and_borders_of_chunks_are_found_once_each(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    feature = np.array([[-1, 1, -1], [1, 1, 1], [-1, 1, 1]])
    pixels = np.full((200, 200), 128, np.uint8)
    places = [
        (0, 0),
        (0, 197),
        (197, 0),
        (197, 197),
        (31, 31),
        (31, 62),
        (64, 64),
        (95, 96),
        (126, 30),
        (96, 127),
        (160, 159),
    ]
    for y, x in places:
        pixels[y : y + 3, x : x + 3] = np.where(feature > 0, 255, 0)
    zarr.create_array("i.zarr", data=pixels, chunks=(32, 32))
    told = {
        "input": {"images": "i.zarr"},
        "features": {"key": {"rows": feature.tolist()}},
        "layers": [{"type": "convolution", "features": "key", "match": "ncc"}],
        "output": {"store": "o.zarr", "chunks": 32, "detections": {"threshold": 0.99, "distance": 12}},
    }
    plan = pipeline.plan(pipeline.load(told))
    assert plan.tasks == 49
    assert pipeline.run(plan, "threads", 2).complete
    found = read()
    assert list(zip(found["map_y"], found["map_x"], strict=True)) == sorted(places)
    assert list(zip(found["y"], found["x"], strict=True)) == [(y + 1.0, x + 1.0) for y, x in sorted(places)]


def test_top_keeps_the_greatest_of_each_map_and_of_equal_ones_the_first(image: np.ndarray) -> None:
    for chunks in (16, 64):
        assert pipeline.run(pipeline.plan(pipeline.load(config(chunks=chunks))), "serial", overwrite=True).complete
        everything = read()
        job = pipeline.load(config("top.zarr", chunks=chunks, detections={**DETECTIONS, "top": 7}))
        assert pipeline.run(pipeline.plan(job), "serial", overwrite=True).complete
        best = everything.groupby("feature", group_keys=False)[everything.columns.tolist()].apply(
            lambda one: one.sort_values("score", ascending=False, kind="stable").head(7)
        )
        assert len(best) == 14
        assert best["score"].duplicated().any()
        pd.testing.assert_frame_equal(read("top.zarr"), best.sort_index().reset_index(drop=True))


KILLED = """
import os, sys
import pipeline
from pipeline import planner
from pipeline.execute import serial, task
planner.TASK_PIXELS = 0
run, done = task.run_task, []
def dying(*words):
    if len(done) == 5:
        os._exit(9)
    done.append(run(*words))
    return done[-1]
serial.run_task = dying
pipeline.run(pipeline.plan(pipeline.load("config.json")), "serial", resume=len(sys.argv) > 1)
"""


def test_a_run_that_is_killed_and_resumed_neither_loses_nor_doubles_rows(
    image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(chunks=32, summaries={"layers": ["match", "pooled"]}, layers=["pooled"])
    assert pipeline.run(
        pipeline.plan(pipeline.load({**asked, "output": {**asked["output"], "store": "w.zarr"}})), "serial"
    ).complete
    Path("config.json").write_text(json.dumps(asked))
    for more in ([], ["--resume"]):
        ended = subprocess.run([sys.executable, "-c", KILLED, *more], env=_environment(), check=False)
        assert ended.returncode == 9
        assert not Path("o.zarr/_haloflow/tables").exists()
    # Gone on with in larger tasks, which overlap those that are recorded.
    plan = pipeline.plan(pipeline.load(asked))
    report = pipeline.run(plan, "threads", 2, resume=True)
    assert report.complete
    found = list(findings(Place.of("o.zarr"), digest(plan.identity)))
    assert len({(f.units.array, f.units.first) for f in found}) < len(found)
    for name in ("detections", "summaries"):
        one, other = (Path(f"{store}.zarr/_haloflow/tables/{name}.parquet").read_bytes() for store in "ow")
        assert one == other
    # And a run that is whole is left as it is.
    before = Path("o.zarr/_haloflow/tables/detections.parquet").stat().st_mtime_ns
    assert pipeline.run(plan, "serial", resume=True).tables == report.tables
    assert Path("o.zarr/_haloflow/tables/detections.parquet").stat().st_mtime_ns == before


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_an_image_that_fails_is_left_out_of_the_tables_until_it_is_whole(
    image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array("j.zarr", data=image[:100, :90], chunks=(64, 48))
    asked = config(chunks=32, summaries={}, layers=[])
    asked["input"]["images"] = ["i.zarr", "j.zarr"]
    plan = pipeline.plan(pipeline.load(asked))
    compute = task.compute

    def failing(of: Any, *words: Any) -> Any:
        if of.source.name == "j":
            raise OSError("gone")
        return compute(of, *words)

    monkeypatch.setattr(task, "compute", failing)
    report = pipeline.run(plan, "serial")
    assert not report.complete
    assert set(read()["image"]) == {"i"}
    assert zarr.open_group("o.zarr", mode="r").attrs["_haloflow"]["complete"] is False
    monkeypatch.setattr(task, "compute", compute)
    assert pipeline.run(plan, "serial", resume=True).complete
    assert set(read()["image"]) == {"i", "j"}
    assert list(zarr.open_group("o.zarr", mode="r").group_keys()) == []  # no image has a map


def test_a_record_that_is_lost_at_the_end_is_no_success(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    plan = pipeline.plan(pipeline.load(config(chunks=64)))
    monkeypatch.setattr("pipeline.execute.tables.findings", lambda *words: list(findings(*words))[1:])
    report = pipeline.run(plan, "serial")
    assert not report.complete
    assert "1 write units have no record of what was found; go on with --resume" in str(report)
    assert len(read()) == 0
