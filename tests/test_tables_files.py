"""Tables as files: what other programs read, what is refused before any work, and what verify finds in them."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
import zarr

import pipeline
from pipeline.errors import OutputError
from pipeline.storage.geo import Geo
from pipeline.storage.metadata import Placed, Window, describe
from pipeline.tables.columns import Column
from pipeline.tables.formats import FORMATS
from tests.buckets import KEYS, client, s3_server

Call = Callable[..., tuple[int, str, str]]
CUT = ["--cluster", "serial", "--overwrite"]
ASKED = {"layer": "match", "threshold": 0.3, "distance": 4, "refine": True}
TABLES = Path("maps.zarr/_haloflow/tables")
POINT = [Column(name, "float64") for name in ("x", "y", "world_y", "world_x")]


def asking(config: Path, **output: Any) -> None:
    told = yaml.safe_load(config.read_text())
    told["output"] = {**told["output"], **output}
    config.write_text(yaml.safe_dump(told, sort_keys=False))


@pytest.fixture
def asked(small: Path) -> Path:
    """The small project, whose config asks for detections and summaries and no maps."""
    summaries = {"layers": "match", "over": 0.25, "histogram": {"range": [-1, 1], "bins": 4}}
    asking(small / "config.yaml", detections=ASKED, summaries=summaries)
    return small


def test_every_format_has_the_same_rows(asked: Path, haloflow: Call) -> None:
    for form in ("parquet", "csv", "geojson"):
        code, out, err = haloflow("run", "config.yaml", *CUT, "--set", f"output.detections.format={form}")
        assert code == 0, err
        assert f"table: {TABLES}/detections.{form}" in out
        assert sorted(p.name for p in TABLES.iterdir()) == sorted([f"detections.{form}", "summaries.parquet"])
        if form == "parquet":
            table = pd.read_parquet(TABLES / "detections.parquet")
            assert table.columns.tolist() == (
                "image feature score y x world_y world_x map_y map_x".split()  # noqa: SIM905 - as words
            )
            assert table["score"].dtype == np.float32
            assert len(table) > 10
            about = json.loads(pq.read_schema(TABLES / "detections.parquet").metadata[b"haloflow"])
            assert about["detections"]["threshold"] == 0.3
        elif form == "csv":
            told = pd.read_csv(TABLES / "detections.csv")
            # As napari knows points: axis-0, axis-1, … are coordinates, and what is left are properties.
            assert told.columns.tolist()[:2] == ["axis-0", "axis-1"]
            pd.testing.assert_frame_equal(
                told.rename(columns={"axis-0": "world_y", "axis-1": "world_x"})[table.columns.tolist()],
                table,
                check_dtype=False,
                check_exact=True,
            )
        else:
            told = json.loads((TABLES / "detections.geojson").read_text())
            assert told["type"] == "FeatureCollection"
            assert "crs" not in told
            assert all(f["type"] == "Feature" and f["geometry"]["type"] == "Point" for f in told["features"])
            assert [f["geometry"]["coordinates"] for f in told["features"]] == table[
                ["world_x", "world_y"]
            ].to_numpy().tolist()
            assert [f["properties"]["score"] for f in told["features"]] == table["score"].tolist()
        assert haloflow("verify", "config.yaml", "--set", f"output.detections.format={form}")[0] == 0
    # The store is an empty one to readers of images, and says where its tables are.
    code, out, _ = haloflow("info", "maps.zarr")
    assert f"table {TABLES}/detections.geojson" in out
    assert list(zarr.open_group("maps.zarr", mode="r").members()) == []
    told = json.loads(haloflow("status", "maps.zarr", "--json")[1])
    assert (told["state"], told["missing"]) == ("complete", 0)
    assert haloflow("verify", "config.yaml", "--checksums")[0] == 0
    code, out, _ = haloflow("plan", "config.yaml")
    assert "keep      no maps" in out
    assert "look at   match 39 × 36 for detections of at least 0.3 (parquet), for which a task makes 4 pixels" in out


def earth(name: str, north: float, step: float, crs: str = "EPSG:32633") -> None:
    """Make of the small project's image one on Earth whose first row lies at ``north`` and the next a step from it."""
    sign = -1 if step < 0 else 1
    level = Placed("0", (1.0, abs(step), 10.0), (0.0, sign * (north + step / 2), 300005.0))
    axes = [("c", None), ("y", None), ("x", None)]
    attributes = {
        **describe(name, axes, [level], ["a", "b"], [Window.of(0, 1)] * 2),
        "geo": {"crs": crs, "affine": [10.0, 0.0, 300000.0, 0.0, step, north]},
    }
    pixels = zarr.open_array("image.zarr", mode="r")[:]
    zarr.create_group(f"{name}.zarr", attributes=attributes).create_array("0", data=pixels, chunks=(1, 16, 16))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a\rb", "a\r\nb", " é", "=1+1"])
def test_names_of_any_signs_come_back_as_they_are(form: str, name: str) -> None:
    file, columns = io.BytesIO(), [Column("image", "text"), Column("feature", "text"), *POINT]
    rows: dict[str, list[Any]] = {"image": [name, "b"], "feature": ["c", name]}
    rows |= {column.name: [1.0, 2.0] for column in POINT}
    writer = FORMATS[form](file, columns, {})
    writer.add(rows)
    writer.close()
    file.seek(0)
    assert FORMATS[form].read(file) == rows
    assert form != "csv" or file.getvalue().count(b"\r") == 2 * name.count("\r")


@pytest.mark.parametrize("order", ["down.zarr, up.zarr", "up.zarr, down.zarr"])
def test_geojson_of_images_on_earth_has_the_coordinates_of_each(small: Path, haloflow: Call, order: str) -> None:
    earth("down", 5000000.0, -10.0)
    earth("up", 4000000.0, 20.0)
    asking(small / "config.yaml", detections={**ASKED, "format": "geojson", "refine": False})
    both = ["--set", f"input.images=[{order}]"]
    code, _, err = haloflow("run", "config.yaml", "--cluster", "serial", *both)
    assert code == 0, err
    told = json.loads((TABLES / "detections.geojson").read_text())
    assert told["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    for feature in told["features"]:
        place = feature["properties"]
        north, step = (5000000, -10) if place["image"] == "down" else (4000000, 20)
        assert feature["geometry"]["coordinates"] == [
            300000 + 10 * (place["x"] + 0.5),
            north + step * (place["y"] + 0.5),
        ]
    assert {feature["properties"]["image"] for feature in told["features"]} == {"down", "up"}
    assert haloflow("verify", "config.yaml", *both)[0] == 0


def test_what_a_table_says_of_all_its_images_holds_for_all(small: Path, haloflow: Call) -> None:
    earth("down", 5000000.0, -10.0)
    earth("up", 4000000.0, 20.0)
    earth("far", 4000000.0, -10.0, "EPSG:32634")
    asking(small / "config.yaml", detections=ASKED)
    for images, expected in (
        ("down.zarr", {"crs": "EPSG:32633", "flipped": True}),
        ("[down.zarr, up.zarr]", {"crs": "EPSG:32633"}),
        ("[down.zarr, far.zarr]", {"flipped": True}),
        ("[down.zarr, image.zarr]", {}),
        ("[image.zarr, down.zarr]", {}),
    ):
        assert haloflow("run", "config.yaml", *CUT, "--set", f"input.images={images}")[0] == 0
        about = json.loads(pq.read_schema(TABLES / "detections.parquet").metadata[b"haloflow"])
        assert {key: about[key] for key in ("crs", "flipped") if key in about} == expected, images


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("detections.layer=mach", "output.detections.layer: there is no layer 'mach'; did you mean 'match'?"),
        ("detections.distance=0", "output.detections.distance: should be greater than or equal to 1; found 0"),
        ("detections.top=0", "output.detections.top: should be greater than or equal to 1; found 0"),
        ("detections.format=xls", "output.detections.format: 'xls' is not possible; valid: csv, geojson, parquet"),
        ("detections.treshold=1", "output.detections.treshold: unknown key; did you mean 'threshold'?"),
        ("detections=0.3", "output.detections: expected keys and their values; found 0.3"),
        ("detections.threshold=.nan", "output.detections.threshold: should be a finite number"),
        ("summaries.layers=[match, mach]", "output.summaries.layers: there is no layer 'mach'"),
        ("summaries.layers=[match, match]", "output.summaries.layers: 'match' stands twice"),
        ("summaries.histogram={range: [1, 0]}", "output.summaries.histogram: range goes from 1 to 0"),
        ("summaries.histogram={range: [-1.0e308, 1.0e308]}", "range goes from -1e+308 to 1e+308, which is wider"),
        ("summaries.histogram={range: [0, 1], bins: 0}", "output.summaries.histogram.bins: should be greater than"),
    ],
)
def test_bad_input_is_refused_before_any_work(asked: Path, haloflow: Call, change: str, words: str) -> None:
    code, _, err = haloflow("run", "config.yaml", "--set", f"output.{change}")
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert not Path("maps.zarr").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "detections.threshold=1.01",
            "output.detections.threshold: 1.01 is outside of -1 to 1, the values of the layer 'match'",
        ),
        ("summaries.over=-1.5", "output.summaries.over: -1.5 is outside of -1 to 1, the values of the layer 'match'"),
    ],
)
def test_thresholds_that_no_match_can_have_are_refused(asked: Path, haloflow: Call, change: str, words: str) -> None:
    code, _, err = haloflow("validate", "config.yaml", "--set", "layers.0.match=ncc", "--set", f"output.{change}")
    assert (code, words in err) == (2, True)
    assert haloflow("validate", "config.yaml", "--set", f"output.{change}")[0] == 0  # a mean may be anything


def test_no_layers_and_no_tables_is_nothing(small: Path, haloflow: Call) -> None:
    code, _, err = haloflow("run", "config.yaml", "--set", "output.layers=[]")
    assert code == 2
    assert "no tables are asked for" in err


def test_a_missing_package_is_told_with_its_extra_when_the_config_is_read(
    asked: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = haloflow("validate", "config.yaml")
    assert (code, "pip install 'haloflow[tables]'" in err) == (2, True)
    asking(asked / "config.yaml", summaries=None, detections={**ASKED, "format": "csv"})
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0


def test_geojson_is_of_one_reference_system_with_a_code() -> None:
    geojson = FORMATS["geojson"]
    geojson.check({"EPSG:4326"})
    geojson.check({""})
    with pytest.raises(OutputError, match="is of one coordinate reference system, and the images are of 2"):
        geojson.check({"EPSG:4326", ""})
    with pytest.raises(OutputError, match="names a coordinate reference system by its EPSG code"):
        geojson.check({Geo('PROJCS["mine"]').crs})


def test_the_plan_counts_what_a_task_holds_and_makes_to_look_at_maps(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)

    def planned(distance: int | None) -> Any:
        told = yaml.safe_load(Path("config.yaml").read_text())
        told["output"] |= {"layers": ["match"], "chunks": 16}
        if distance:
            told["output"]["detections"] = {**ASKED, "distance": distance}
        return pipeline.plan(pipeline.load(told)).images[0]

    zarr.create_array("image.zarr", data=np.ones((2, 1500, 1500), np.uint8), chunks=(1, 250, 250), overwrite=True)
    without, near, far = (planned(distance) for distance in (None, 3, 200))
    assert without.block_memory < near.block_memory < far.block_memory
    index = tuple(n // 2 for n in far.grid.counts)
    own, seen = far.grid.regions(index)[0], far.grid.seen(index)[0]
    held = 4 * (len(seen[0])) * (len(seen[1]))
    assert far.block_memory >= held
    assert [(len(s), len(o)) for s, o in zip(seen, own, strict=True)] == [(len(o) + 400, len(o)) for o in own]
    assert far.cache > near.cache


def test_tables_lie_in_a_bucket(small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as port:
        told = {**KEYS, "endpoint_url": f"http://127.0.0.1:{port}", "client_kwargs": {"region_name": "us-east-1"}}
        monkeypatch.setenv("HALOFLOW_STORAGE_OPTIONS", json.dumps(told))
        client(port).create_bucket(Bucket="results")
        asking(small / "config.yaml", detections=ASKED, summaries={})
        assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
        far = ("--set", "output.store=s3://results/maps.zarr")
        code, _, err = haloflow("run", "config.yaml", "--cluster", "serial", *far)
        assert code == 0, err
        for name in ("detections", "summaries"):
            there = client(port).get_object(Bucket="results", Key=f"maps.zarr/_haloflow/tables/{name}.parquet")
            assert there["Body"].read() == (TABLES / f"{name}.parquet").read_bytes()
        assert haloflow("verify", "config.yaml", *far)[0] == 0
        # What is replaced takes its tables along.
        asking(small / "config.yaml", detections=None)
        assert haloflow("run", "config.yaml", "--cluster", "serial", "--overwrite", *far)[0] == 0
        keys = [o["Key"] for o in client(port).list_objects_v2(Bucket="results")["Contents"]]
        assert [key.split("/")[-1] for key in keys if "/tables/" in key] == ["summaries.parquet"]
