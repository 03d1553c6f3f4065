"""Tables of summaries: those of the whole map in float64, the same bytes whatever the chunks, for sparse images too."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.geometry import Interval
from pipeline.sections import Histogram, Summaries
from pipeline.storage.metadata import Placed, Window, describe
from pipeline.tables.sums import Sums, sum_up

WANTED = Summaries(over=0.25, histogram=Histogram(range=(-1.0, 1.0), bins=5))
FLOATS = st.floats(width=32) | st.sampled_from([-1.0, 1.0, 0.2, -0.2, 0.6, 0.25, 0.0, -0.0, 1e-45, -3e38])
FEATURES = {"edge": {"rows": [[-1, 2], [3, -4]]}, "blob": {"rows": [[1, 2], [1, -2]]}}


def sums_of(values: np.ndarray) -> Sums:
    region = tuple(Interval(0, n) for n in values.shape)
    return sum_up(WANTED, values, region, region)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
@settings(max_examples=150, deadline=None)
def test_sums_are_exact_and_parts_add_up_to_the_whole(height: int, width: int, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(FLOATS, min_size=height * width, max_size=height * width)), np.float32)
    values = values.reshape(height, width)
    made = sums_of(values)
    numbers = values[~np.isnan(values)].astype(np.float64)
    finite = [Fraction(float(v)) for v in numbers if np.isfinite(v)]
    assert Fraction(made.total, 2**149) == sum(finite)
    assert Fraction(made.squares, 2**298) == sum(v * v for v in finite)
    assert (made.pixels, made.numbers, made.over) == (values.size, numbers.size, int((numbers >= 0.25).sum()))
    assert list(made.bins) == np.histogram(numbers[np.isfinite(numbers)], 5, (-1, 1))[0].tolist()
    if numbers.size:
        value, *at = made.largest or ()
        assert value == numbers.max()
        assert at == list(np.argwhere(values == numbers.max())[0])
        with np.errstate(all="ignore"):
            np.testing.assert_equal(
                made.mean, math.fsum(numbers) / numbers.size if len(finite) == numbers.size else numbers.mean()
            )
    else:
        assert made.largest is None
        assert math.isnan(made.mean)
    # Any cut, and any order of the parts.
    y, x = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    parts = [
        sum_up(WANTED, values, (Interval(0, height), Interval(0, width)), (rows, columns))
        for rows in (Interval(0, y), Interval(y, height))
        for columns in (Interval(0, x), Interval(x, width))
    ]
    assert sum(data.draw(st.permutations(parts)), Sums()) == made
    assert Sums.unpack(made.pack()) == made


def test_the_deviation_is_right_where_float64_cancels() -> None:
    values = (1e6 + np.random.default_rng(1).integers(0, 3, (40, 50)) / 16).astype(np.float32)
    exact = [Fraction(float(v)) for v in values.ravel()]
    mean = sum(exact) / len(exact)
    assert sums_of(values).std == math.sqrt(sum((v - mean) ** 2 for v in exact) / len(exact))
    assert sums_of(np.full((30, 30), 0.1, np.float32)).std == 0
    assert sums_of(np.array([[3e38, -3e38, 3e38]], np.float32)).std == pytest.approx(np.std([3e38, -3e38, 3e38]))


def job_of(store: str, images: Any = "i.zarr", **output: Any) -> pipeline.Job:
    asked = {
        "input": {"images": images},
        "features": FEATURES,
        "layers": [
            {"type": "convolution", "name": "match", "features": ["edge", "blob"]},
            {"type": "pool", "name": "pooled", "window": 3, "stride": 2},
        ],
        "output": {
            "store": store,
            "summaries": {"layers": ["pooled", "match"], "over": 0.25, "histogram": {"range": [-1, 1], "bins": 16}},
            **output,
        },
    }
    return pipeline.load(asked)


def run(store: str, images: Any = "i.zarr", **output: Any) -> pd.DataFrame:
    report = pipeline.run(pipeline.plan(job_of(store, images, **output)), "serial", overwrite=True)
    assert report.complete
    return pd.read_parquet(f"{store}/_haloflow/tables/summaries.parquet")


def file(store: str, name: str = "summaries") -> bytes:
    return Path(f"{store}/_haloflow/tables/{name}.parquet").read_bytes()


def test_summaries_are_those_of_the_whole_map_for_every_chunking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    pixels = np.random.default_rng(3).normal(0, 0.4, (97, 83)).astype(np.float32)
    pixels[20, 30] = np.nan
    zarr.create_array("i.zarr", data=pixels, chunks=(32, 32))
    chunks: list[Any] = [16, 21, 32, 40, 64, 200, [97, 8], [11, 64], 17]
    made = set()
    for size in chunks:
        told = run("o.zarr", chunks=size)
        made.add(file("o.zarr"))
    told = run("o.zarr", chunks=16, shards=48, layers=["match"], dtype="float16")
    made.add(file("o.zarr"))
    assert len(made) == 1
    assert list(zip(told["layer"], told["feature"], strict=True)) == [
        ("match", "edge"), ("match", "blob"), ("pooled", "edge"), ("pooled", "blob")
    ]  # fmt: skip
    job = job_of("o.zarr")
    for row in told.to_dict("records"):
        maps = job.stack(pixels, row["layer"])  # noqa: PD013 - not pandas'
        values = maps[["edge", "blob"].index(row["feature"])].astype(np.float64)
        numbers = values[~np.isnan(values)]
        assert (row["pixels"], row["nan"]) == (values.size, values.size - numbers.size)
        assert row["nan"] > 0
        assert row["mean"] == math.fsum(numbers) / numbers.size
        assert row["std"] == pytest.approx(numbers.std(), rel=1e-13)
        assert row["max"] == numbers.max()
        assert row["over"] == (numbers >= 0.25).mean()
        assert row["histogram"].tolist() == np.histogram(numbers, 16, (-1, 1))[0].tolist()
        y, x = np.unravel_index(np.nanargmax(values), values.shape)
        step, middle = (1, 0.5) if row["layer"] == "match" else (2, 1.5)
        assert (row["max_y"], row["max_x"]) == (step * y + middle, step * x + middle)


def test_sums_that_no_float_holds_have_a_right_mean_and_infinite_pixels_an_infinite_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    greatest = float(np.finfo(np.float32).max)
    pixels = np.full((40, 40), greatest, np.float32)
    pixels[:, 20:] = -greatest
    pixels[:5, 20:] = greatest
    zarr.create_array("i.zarr", data=pixels, chunks=(16, 16))
    told = {
        "input": {"images": "i.zarr"},
        "features": {"one": "#", "two": {"rows": [[2]]}},
        "layers": [
            {"type": "convolution", "name": "same", "features": "one", "match": "sum"},
            {"type": "convolution", "name": "twice", "features": "two", "match": "sum"},
        ],
        "output": {"store": "o.zarr", "chunks": 16, "summaries": {"layers": ["same", "twice"], "over": 0}},
    }
    assert pipeline.run(pipeline.plan(pipeline.load(told)), "serial").complete
    same, twice = pd.read_parquet("o.zarr/_haloflow/tables/summaries.parquet").to_dict("records")
    assert (same["mean"], same["max"], same["over"]) == (greatest / 8, greatest, 0.5625)
    assert same["std"] == pytest.approx(greatest * math.sqrt(1 - 1 / 64), rel=1e-14)
    # Of +∞ and −∞ there is no mean; nor a deviation of any infinity.
    assert (twice["max"], twice["over"], twice["nan"]) == (math.inf, 0.5625, 0)
    assert math.isnan(twice["mean"])
    assert math.isnan(twice["std"])


@pytest.mark.parametrize("fill", [0, 128, 255])
def test_a_sparse_image_gives_the_tables_of_a_dense_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: int
) -> None:
    """Plains are equal pixels: the peak of one is its first pixel, wherever a block that is not made begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    pixels = np.full((2, 3, 300, 260), fill, np.uint8)
    pixels[1, 1, 100:120, 90:140] = np.random.default_rng(fill).integers(0, 256, (20, 50))
    pixels[0, 2, 0:5, 0:9] = 77
    axes = [("t", "second"), ("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer")]
    level = Placed("0", (30.0, 1.0, 2.0, 0.5, 0.25), (5.0, 0.0, 10.0, 1.0, 3.0))
    for name, stored in (("i", fill), ("dense", (fill + 7) % 256)):
        group = zarr.create_group(f"{name}.zarr", attributes=describe(name, axes, [level], ["a"], [Window.of(0, 1)]))
        array = group.create_array(
            "0", shape=(2, 1, 3, 300, 260), chunks=(1, 1, 1, 32, 32), dtype="u1", fill_value=stored
        )
        array[:] = pixels[:, None]
    found: list[dict[str, pd.DataFrame]] = []
    for name in ("i", "dense"):
        detections = {"layer": "match", "threshold": -1.0, "distance": 9}
        run(f"o-{name}.zarr", f"{name}.zarr", chunks=32, detections=detections)
        tables = ("detections", "summaries")
        found.append({t: pd.read_parquet(f"o-{name}.zarr/_haloflow/tables/{t}.parquet") for t in tables})
    record = zarr.open_group("o-i.zarr", mode="r").attrs["_haloflow"]["plan"]["images"][0]
    assert record["empty"] > record["tasks"]
    for one, other in ((found[0][name], found[1][name]) for name in ("detections", "summaries")):
        pd.testing.assert_frame_equal(one.drop(columns="image"), other.drop(columns="image"))
        assert one.groupby(["t", "z"]).ngroups == 6
    peaks = found[0]["detections"]
    first = peaks.iloc[0]
    assert (first["t"], first["z"], first["map_y"], first["map_x"]) == (0, 0, 0, 0)
    assert (first["world_t"], first["world_z"]) == (5.0, 10.0)
    assert (first["world_y"], first["world_x"]) == (1.0 + 0.5 * 0.5, 3.0 + 0.5 * 0.25)
    inside = peaks[(peaks["t"] == 1) & (peaks["z"] == 1) & (peaks["map_y"] > 90) & (peaks["map_x"] > 80)]
    assert len(inside) > 2
    assert set(inside["world_t"]) == {35.0}
    assert set(inside["world_z"]) == {12.0}
