"""Tables after a fault: nothing half is left behind, and what is gone is made again from the records."""

import errno
import shutil
import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import RunError
from pipeline.status import check
from pipeline.storage import tablefiles, target
from pipeline.storage.findings import by_array, findings
from pipeline.storage.place import Place
from pipeline.storage.records import FOLDER, Segments, Units
from pipeline.tables.formats import FORMATS

TABLES = Path("o.zarr/_haloflow/tables")

JOB = {"input": {"images": ["a.zarr", "b.zarr"]}, "layers": [{"type": "pool"}, {"type": "global_pool"}]}
OUTPUT = {
    "store": "o.zarr",
    "chunks": 8,
    "layers": ["pool"],
    "detections": {"threshold": 0.5},
    "summaries": {},
    "decisions": {"format": "csv"},
}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pipeline.Plan:
    """A run over two images whose tables are of three kinds, and which keeps maps."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (40, 40)).astype(np.uint8)
        zarr.create_array(f"{name}.zarr", data=pixels, chunks=(16, 16))
    return pipeline.plan(pipeline.load({**JOB, "output": OUTPUT}))


def tables() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in TABLES.iterdir()}


def left() -> list[str]:
    """What stands in the store's own folder that no run should leave there."""
    return [str(path) for path in Path("o.zarr/_haloflow").rglob("*partial*")]


def test_a_table_that_cannot_be_written_leaves_nothing_half(plan: pipeline.Plan) -> None:
    assert pipeline.run(plan, "serial").complete
    whole = tables()
    assert sorted(whole) == ["decisions.csv", "detections.parquet", "summaries.parquet"]

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FORMATS["csv"], "add", full)
        with pytest.raises(RunError, match=r"o.zarr cannot be written: No space left on device; .* --resume"):
            pipeline.run(plan, "serial", overwrite=True)
    assert tables() == {}
    assert not [path for path in left() if "parquet" in path or "csv" in path]
    assert pipeline.run(plan, "serial", resume=True).complete
    assert tables() == whole
    assert left() == []


@pytest.mark.parametrize("gone", ["detections.parquet", "decisions.csv", ""])
def test_a_table_that_is_gone_from_a_whole_store_is_made_again_from_the_records(plan: pipeline.Plan, gone: str) -> None:
    assert pipeline.run(plan, "serial").complete
    whole, chunk = tables(), next(Path("o.zarr/a/pool/0/c").rglob("0"))
    before = chunk.stat().st_mtime_ns
    (TABLES / gone).unlink() if gone else shutil.rmtree(TABLES)
    report = pipeline.run(plan, "serial", resume=True)
    assert report.complete
    assert report.resumed == report.tasks
    assert all(Path(path).exists() for path in report.tables)
    assert tables() == whole
    assert chunk.stat().st_mtime_ns == before


def test_rows_of_an_image_that_cannot_be_read_any_more_are_not_left_out_in_silence(plan: pipeline.Plan) -> None:
    assert pipeline.run(plan, "serial").complete
    whole = tables()
    shutil.rmtree(TABLES)
    Path("b.zarr").rename("c.zarr")
    report = pipeline.run(plan, "serial", resume=True)
    assert not report.complete
    (failure,) = report.failures
    assert (failure["image"], failure["task"]) == ("b.zarr", "tables")
    assert "b.zarr" in failure["reason"]
    Path("c.zarr").rename("b.zarr")
    assert pipeline.run(plan, "serial", resume=True).complete
    assert tables() == whole


def test_what_was_found_is_packed(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    store, told = Place.of(str(tmp_path)), {}
    for counter in (1, 2):
        segment = Segments(store, "plan", counter).begin()
        for n in range(10_000):
            box = (counter, n // 100, n % 100), (1, 1, 2)
            told[box[0]] = b"%d of %d" % (n, counter)
            stored = Units("x/stored/0", *box, (4, 4), (7, 7))
            segment.append([stored, Units("x/looked/0", *box, (), (), found=told[box[0]])])
        segment.close()
    tracemalloc.start()
    try:
        found = by_array(findings(store, "plan"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * len(told)
    assert {*found} == {"x/looked/0"}
    assert [one.units.first for one in found["x/looked/0"]] == sorted(told)
    for number in (0, 9_999, 10_000, 19_999):
        one = found["x/looked/0"][number]
        assert one.load(store) == told[one.units.first]
        assert one.units.counts == (1, 1, 2)


@pytest.mark.parametrize("data", [b"", b"PAR1 and nothing of a table"])
def test_decisions_that_cannot_be_read_are_made_again(plan: pipeline.Plan, data: bytes) -> None:
    again = pipeline.plan(pipeline.load({**JOB, "output": {**OUTPUT, "decisions": {"format": "parquet"}}}))
    assert pipeline.run(again, "serial").complete
    whole = tables()
    (TABLES / "decisions.parquet").write_bytes(data)
    assert pipeline.run(again, "serial", resume=True).complete
    assert tables() == whole


def other(data: bytes) -> bytes:
    """As many bytes, of which a letter within a row is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("name", ["decisions.csv", "detections.parquet", "summaries.parquet"])
def test_a_table_that_is_not_as_it_was_written_is_named(plan: pipeline.Plan, name: str) -> None:
    assert pipeline.run(plan, "serial").complete
    assert check(plan.store).passed
    data = (TABLES / name).read_bytes()
    for wrong, words in [
        (other(data), "has another checksum than what was written"),
        (data[:-1], f"has {len(data) - 1} bytes, and {len(data)} were written"),
        (None, "is missing"),
    ]:
        (TABLES / name).unlink() if wrong is None else (TABLES / name).write_bytes(wrong)
        assert check(plan.store).faults == (f"_haloflow/tables/{name} {words}",)


def test_a_table_of_another_size_is_made_again_and_one_that_is_left_keeps_what_is_noted_of_it(
    plan: pipeline.Plan,
) -> None:
    assert pipeline.run(plan, "serial").complete
    whole, table = tables(), TABLES / "detections.parquet"
    noted = target.recorded(plan.store)["tables"]
    table.write_bytes(whole[table.name][:-1])
    assert pipeline.run(plan, "serial", resume=True).complete
    assert tables() == whole
    assert target.recorded(plan.store)["tables"] == noted
    assert check(plan.store).passed
    table.write_bytes(other(whole[table.name]))
    assert pipeline.run(plan, "serial", resume=True).complete
    assert target.recorded(plan.store)["tables"] == noted
    assert check(plan.store).faults == (f"_haloflow/tables/{table.name} has another checksum than what was written",)


@pytest.mark.parametrize("told", [None, 3, {"zarr.json": [1, 2]}, {"_haloflow/tables/decisions.csv": [1]}], ids=str)
def test_a_store_that_says_nothing_of_its_tables_is_checked_without_them(plan: pipeline.Plan, told: Any) -> None:
    assert pipeline.run(plan, "serial").complete
    root = zarr.open_group("o.zarr", mode="r+", use_consolidated=False)
    root.attrs["_haloflow"] = {**root.attrs["_haloflow"], "tables": told}
    assert check(plan.store).passed
    assert pipeline.run(plan, "serial", resume=True).complete


def test_a_large_table_is_not_held(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**26)
    tracemalloc.start()
    try:
        noted = tablefiles.note(Place.of(str(tmp_path)), ["large"])
        assert not [*tablefiles.faults(Place.of(str(tmp_path)), noted)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert noted["large"][0] == 2**26
    assert peak < 2**24


def test_tables_far_away_are_held_against_what_was_noted_too(plan: pipeline.Plan) -> None:
    job = {**JOB, "output": {**OUTPUT, "store": f"memory://{uuid.uuid4()}/o.zarr"}}
    away, key = pipeline.plan(pipeline.load(job)), "_haloflow/tables/detections.parquet"
    assert pipeline.run(away, "serial").complete
    assert check(away.store).passed
    whole = away.store.read(key) or b""
    for wrong in (whole[:-1], None):
        away.store.delete(key) if wrong is None else away.store.write(key, wrong)
        assert not check(away.store).passed
        assert pipeline.run(away, "serial", resume=True).complete
        assert away.store.read(key) == whole
        assert check(away.store).passed
