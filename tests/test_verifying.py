"""What verify finds in tables: each thing that is wrong, by its table, row and column."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zarr
from scipy.ndimage import maximum_filter

import pipeline
from pipeline.storage.metadata import Placed, Window, describe
from pipeline.verifying.detections import greatest_beside

Call = Callable[..., tuple[int, str, str]]
Change = Callable[[pd.DataFrame], pd.DataFrame]
CUT = ["--cluster", "serial", "--overwrite"]
ASKED = {"layer": "match", "threshold": 0.3, "distance": 4, "refine": True}
TABLES = Path("maps.zarr/_haloflow/tables")


@pytest.fixture
def asked(small: Path) -> Path:
    """The small project, whose config asks for detections and summaries and no maps."""
    told = yaml.safe_load((small / "config.yaml").read_text())
    summaries = {"layers": "match", "over": 0.25, "histogram": {"range": [-1, 1], "bins": 4}}
    told["output"] |= {"detections": ASKED, "summaries": summaries}
    (small / "config.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    return small


def put(table: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    """Return a table with another value in a row of a column."""
    table = table.copy()
    table.loc[row, column] = value
    return table


def swapped(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[[0, 2, 1, *range(3, len(table))]]


def of_another_image(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[-1:].assign(image="other")])


CHANGES: dict[str, tuple[str, Change, str]] = {
    "a score": ("detections", lambda t: t.assign(score=t["score"] + np.float32(0.01)), "the score is"),
    "a score below": (
        "detections",
        lambda t: put(t, 4, "score", 0.25),
        "row 4, column score: expected at least 0.3, got 0.25",
    ),
    "a place": ("detections", lambda t: put(t, 5, "x", t["x"][5] + 2), "row 5, column x: expected "),
    "a pixel": ("detections", lambda t: t.assign(map_x=(t["map_x"] + 1).clip(0, 35)), "the score is"),
    "a pixel outside": (
        "detections",
        lambda t: put(t, 2, "map_y", 39),
        "column map_y: expected 0 to 38, got 39",
    ),
    "rows that are gone": ("detections", lambda t: t.iloc[::2], "a peak of edge is not in the table"),
    "all rows gone": ("detections", lambda t: t.iloc[:0], "a peak of edge is not in the table"),
    "no summaries": ("summaries", lambda t: t.iloc[:0], "image has 0 rows of summaries, and 1 maps"),
    "rows twice": ("detections", lambda t: pd.concat([t, t.iloc[3:4]]), "stands twice"),
    "rows too near": (
        "detections",
        lambda t: pd.concat([t.iloc[:1], t.iloc[:1].assign(map_x=t["map_x"][0] + 3), t.iloc[1:]]),
        "row 1: is a peak of edge within 4 pixels of that of row 0",
    ),
    "the order": ("detections", swapped, "stands after row 1 of y ["),
    "an image": ("detections", of_another_image, "row 22, column image: other is no image of the run"),
    "a feature": (
        "detections",
        lambda t: put(t, 3, "feature", "hedge"),
        "row 3, column feature: expected edge, got hedge",
    ),
    "a place in the world": ("detections", lambda t: put(t, 1, "world_y", 0.1), "row 1, column world_y: expected "),
    "a mean": ("summaries", lambda t: t.assign(mean=t["mean"] + 0.001), "the table's mean is"),
    "a maximum": ("summaries", lambda t: t.assign(max=np.float32(0.5)), "the table's max is 0.5"),
    "a count": ("summaries", lambda t: t.assign(pixels=t["pixels"] + 1), "the table counts"),
    "a part": ("summaries", lambda t: t.assign(over=t["over"] + 0.1), "of the pixels at least 0.25"),
    "the place of a maximum": (
        "summaries",
        lambda t: t.assign(max_y=t["max_y"] + 1, max_world_y=t["max_world_y"] + 1),
        "the map's value there",
    ),
    "that in the world": (
        "summaries",
        lambda t: t.assign(max_world_x=t["max_world_x"] + 1),
        "in the world, and lies at",
    ),
    "a histogram": (
        "summaries",
        lambda t: t.assign(histogram=[[0, *h[1:]] for h in t["histogram"]]),
        "the table counts 0 pixels from",
    ),
    "a layer": ("summaries", lambda t: t.assign(layer="pool"), "row 0, column layer: expected match, got pool"),
    "another image": ("summaries", of_another_image, "row 1, column image: other is no image of the run"),
}


def rewrite(path: Path, change: Change, about: dict[str, Any] | None = None) -> None:
    schema = pq.read_schema(path)
    if about is not None:
        schema = schema.with_metadata({"haloflow": json.dumps(about)})
    pq.write_table(pa.Table.from_pandas(change(pd.read_parquet(path)), schema, preserve_index=False), path)


def test_what_is_wrong_with_a_table_is_named(asked: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
    code, out, _ = haloflow("verify", "config.yaml")
    assert (code, "checked: detections.parquet: 22 rows\n" in out) == (0, True)
    job = pipeline.load("config.yaml")
    for name, (table, change, words) in CHANGES.items():
        path = TABLES / f"{table}.parquet"
        before = path.read_bytes()
        rewrite(path, change)
        found = pipeline.verify(job, windows=1)
        assert (found.passed, words in str(found)) == (False, True), (name, str(found))
        path.write_bytes(before)
    path.write_bytes(before[:-3])
    code, _, err = haloflow("verify", "config.yaml")
    assert (code, f"{path}: cannot be read" in err) == (2, True)
    assert "remove it, and 'haloflow run --resume' makes it again" in err
    path.unlink()
    code, _, err = haloflow("verify", "config.yaml")
    assert (code, "there is no such table" in err) == (2, True)
    assert haloflow("run", "config.yaml", "--cluster", "serial", "--resume")[0] == 0
    assert path.read_bytes() == before


def test_a_peak_that_is_missing_is_found_however_far_peaks_are_apart(asked: Path, haloflow: Call) -> None:
    apart = ("--set", "output.detections.distance=1024")
    assert haloflow("run", "config.yaml", *CUT, *apart)[0] == 0
    code, out, err = haloflow("verify", "config.yaml", *apart)
    assert code == 0, out + err
    rewrite(TABLES / "detections.parquet", lambda t: t.iloc[1:])
    code, out, _ = haloflow("verify", "config.yaml", *apart)
    assert code == 3
    assert "a peak of edge is not in the table" in out


def test_what_is_greatest_beside_a_pixel_is_what_a_window_with_a_hole_says() -> None:
    draw = np.random.default_rng(4)
    for distance in (1, 2, 3, 8, 40):
        values = draw.choice([-np.inf, -1.0, 0.0, 1.0, 2.0, 3.0], (2, 11, 17), p=[0.5, 0.2, 0.1, 0.1, 0.07, 0.03])
        hole = np.ones((2 * distance + 1,) * 2, bool)
        hole[distance, distance] = False
        expected = [maximum_filter(v, footprint=hole, mode="constant", cval=-np.inf) for v in values]
        assert np.array_equal(greatest_beside(values, distance), expected)


def test_a_table_that_was_asked_for_otherwise_is_named(asked: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
    path = TABLES / "detections.parquet"
    before = path.read_bytes()
    about = json.loads(pq.read_schema(path).metadata[b"haloflow"])
    rewrite(path, lambda t: t, {"detections": {**about["detections"], "threshold": 0.2}})
    code, out, _ = haloflow("verify", "config.yaml")
    assert code == 3
    assert "detections.parquet: was written for output.detections.threshold 0.2; expected 0.3" in out
    path.write_bytes(before)
    code, _, err = haloflow("verify", "config.yaml", "--set", "output.detections.refine=false")
    assert code == 2
    assert "output.detections.refine: maps.zarr was made with True, and the config has False" in err


def test_a_table_that_lacks_what_the_config_asks_for_is_refused(asked: Path, haloflow: Call) -> None:
    code, _, err = haloflow("run", "config.yaml", *CUT, "--set", "output.summaries.over=null")
    assert code == 0, err
    code, _, err = haloflow("verify", "config.yaml")
    assert (code, f"{TABLES}/summaries.parquet: has no column over" in err) == (2, True)


def test_an_infinite_peak_is_taken_for_one(asked: Path, haloflow: Call) -> None:
    pixels = np.random.default_rng(1).normal(size=(40, 37)).astype(np.float32)
    pixels[20, 20] = np.inf
    zarr.create_array("inf.zarr", data=pixels, chunks=(16, 16))
    for form in ("parquet", "geojson"):
        told = ["--set", "input.images=inf.zarr", "--set", f"output.detections.format={form}"]
        assert haloflow("run", "config.yaml", *CUT, *told)[0] == 0
        code, out, _ = haloflow("verify", "config.yaml", *told)
        assert code == 0, out


PLANES: list[tuple[Change, str]] = [
    (lambda t: put(t, 9, "world_z", 11.0), "row 9, column world_z: expected 12.0, got 11.0"),
    (lambda t: t.assign(world_t=t["world_t"] + 1), "row 0, column world_t: expected 5.0, got 6.0"),
    (lambda t: t.assign(world_t=t["world_t"] + 1), "more rows are wrong"),
    (lambda t: put(t, 2, "z", 3), "row 2, column z: expected 0 to 2, got 3"),
    (lambda t: put(t, 2, "t", None), "row 2, column t: expected 0 to 1, got none"),
    (lambda t: t.iloc[::-1], "expected the order of plane, y, x and feature"),
    (lambda t: t.iloc[[0, 0, *range(1, len(t))]].assign(map_x=[0, *t["map_x"]]), "peaks of a; expected at most 30"),
]


def test_rows_of_planes_lie_where_their_planes_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    axes = [("t", "second"), ("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer")]
    level = Placed("0", (30.0, 1.0, 2.0, 0.5, 0.25), (5.0, 0.0, 10.0, 1.0, 3.0))
    group = zarr.create_group("i.zarr", attributes=describe("i", axes, [level], ["a"], [Window.of(0, 1)]))
    pixels = np.random.default_rng(3).integers(0, 256, (2, 1, 3, 30, 30)).astype(np.uint8)
    group.create_array("0", data=pixels, chunks=(1, 1, 1, 16, 16))
    told = {
        "input": {"images": "i.zarr"},
        "layers": [{"type": "pool"}],
        "output": {
            "store": "o.zarr",
            "detections": {"threshold": 0.5, "distance": 2, "top": 30, "format": "csv"},
            "summaries": {},
        },
    }
    job = pipeline.load(told)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    assert pipeline.verify(job).passed
    path = Path("o.zarr/_haloflow/tables/detections.csv")
    before = path.read_bytes()
    world = {f"axis-{n}": f"world_{name}" for n, name in enumerate("tzyx")}
    whole = pd.read_csv(path).rename(columns=world)
    whole[["t", "z"]] = whole[["t", "z"]].astype("Int64")
    for change, words in PLANES:
        changed = change(whole.copy()).rename(columns={name: axis for axis, name in world.items()})
        changed.to_csv(path, index=False)
        found = pipeline.verify(job)
        assert words in str(found), words
        assert not found.passed
    path.write_bytes(before)
    other = Path("o.zarr/_haloflow/tables/summaries.parquet")
    rewrite(other, lambda t: t.iloc[[1, 0, 2, 3, 4, 5]])
    assert "summaries.parquet: row 0, column z: expected 0, got 1" in str(pipeline.verify(job))


def test_images_stand_in_the_order_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (20, 20)).astype(np.uint8)
        zarr.create_array(f"{name}.zarr", data=pixels, chunks=(16, 16))
    told = {
        "input": {"images": ["a.zarr", "b.zarr"]},
        "layers": [{"type": "pool"}],
        "output": {"store": "o.zarr", "detections": {"threshold": 0.5}},
    }
    job = pipeline.load(told)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    path = Path("o.zarr/_haloflow/tables/detections.parquet")
    rewrite(path, lambda t: pd.concat([t[t["image"] == "b"], t[t["image"] == "a"]]))
    count = (pd.read_parquet(path)["image"] == "b").sum()
    words = f"row {count}, column image: a stands after b; expected before it"
    assert [words in line for line in pipeline.verify(job).tables] == [True]
