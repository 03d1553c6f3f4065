"""What is damaged of a store's records and metadata before a run goes on with it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import OutputError
from pipeline.status import check, status
from pipeline.storage.identity import digest
from pipeline.storage.place import Place
from pipeline.storage.records import Segments, Units, frames_of

RECORDS = Path("maps.zarr/_haloflow/records")


@pytest.fixture
def plan(small: Path, monkeypatch: pytest.MonkeyPatch) -> pipeline.Plan:
    """Nine tasks of a chunk each, done."""
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    made = pipeline.plan(pipeline.load("config.yaml"))
    assert pipeline.run(made, "serial").complete
    return made


def test_an_image_of_which_records_are_gone_is_not_finished(plan: pipeline.Plan) -> None:
    whole = maps()
    largest = max(RECORDS.iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    lost = status("maps.zarr").missing
    assert 0 < lost < 9
    report = pipeline.run(plan, "serial", resume=True)
    assert report.complete
    assert report.tasks - report.resumed == lost
    assert status("maps.zarr").missing == 0
    assert check(Place.of("maps.zarr")).passed
    assert maps() == whole


def test_without_its_records_all_of_a_store_is_made_again(plan: pipeline.Plan) -> None:
    whole = maps()
    shutil.rmtree(RECORDS)
    report = pipeline.run(plan, "serial", resume=True)
    assert report.complete
    assert report.resumed == 0
    assert maps() == whole


@pytest.fixture
def levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pipeline.Plan:
    """A run over two images whose maps have levels, done."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        zarr.create_array(f"{name}.zarr", data=np.random.default_rng(ord(name)).random((40, 40), np.float32))
    output = {"store": "maps.zarr", "chunks": 8, "pyramid": "mean"}
    job = {"input": {"images": ["a.zarr", "b.zarr"]}, "layers": [{"type": "pool"}], "output": output}
    made = pipeline.plan(pipeline.load(job))
    assert pipeline.run(made, "serial").complete
    return made


def test_no_record_is_lost_in_silence_and_what_has_none_is_made_again(levels: pipeline.Plan) -> None:
    whole = check(Place.of("maps.zarr"))
    assert whole.passed
    assert whole.units == 2 * (9 + 4 + 1) == status("maps.zarr").done
    shutil.copytree(RECORDS, "kept")
    for segment in sorted(Path("kept").iterdir()):
        data = segment.read_bytes()
        for at in range(0, len(data), len(data) // 9):
            shutil.rmtree(RECORDS)
            shutil.copytree("kept", RECORDS)
            (RECORDS / segment.name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            found = check(Place.of("maps.zarr"))
            assert found.units == whole.units or not found.passed
            assert pipeline.run(levels, "serial", resume=True).complete
            found = check(Place.of("maps.zarr"))
            assert found.passed
            assert found.units >= whole.units


def rewrite(plan: pipeline.Plan, change: Callable[[Any], Any]) -> None:
    """Write what a run has noted, and the records of its small levels, again as it is changed; nothing of None."""
    (journal,) = [path for path in RECORDS.iterdir() if b"finished" in path.read_bytes()]
    with journal.open("rb") as file:
        _, *frames = frames_of(file, str(journal))
    journal.unlink()
    segment = Segments(Place.of("maps.zarr"), digest(plan.identity), 1).begin()
    for frame in filter(None, map(change, frames)):
        segment.append([*map(Units.unpack, frame)] if isinstance(frame, list) else frame)
    segment.close()


def test_a_level_that_has_no_record_is_made_again_and_nothing_but_levels(levels: pipeline.Plan) -> None:
    stored = [path for path in Path("maps.zarr").glob("[ab]/pool/*/c/**/*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in stored}
    rewrite(levels, lambda frame: None if isinstance(frame, list) and frame[0][0] == "b/pool/2" else frame)
    Path("maps.zarr/b/pool/2/c/0/0/0").write_bytes(b"damaged")
    assert (status("maps.zarr").done, status("maps.zarr").missing) == (27, 1)
    assert check(Place.of("maps.zarr")).faults == ("1 of 28 write units have no record: it is missing or damaged",)
    assert pipeline.run(levels, "serial", resume=True).complete
    assert all(path.read_bytes() == data for path, (data, _) in before.items())
    again = {
        path.relative_to("maps.zarr").parts[:3] for path, (_, node) in before.items() if path.stat().st_ino != node
    }
    assert again <= {("b", "pool", "1"), ("b", "pool", "2")}
    assert check(Place.of("maps.zarr")).passed


@pytest.mark.parametrize("lost", ["plan", "image"])
def test_an_image_is_not_finished_where_what_says_so_stands_alone(plan: pipeline.Plan, lost: str) -> None:
    """As in a bucket, where what a run notes lies in several objects, or after a run that was gone on with."""
    rewrite(plan, lambda frame: None if lost in frame else frame)
    report = pipeline.run(plan, "serial", resume=True)
    # Without what says which image was read nothing of it counts.
    assert (report.complete, report.resumed) == (True, report.tasks if lost == "plan" else 0)
    assert check(Place.of("maps.zarr")).passed


def test_what_was_noted_of_an_image_without_its_levels_still_holds(levels: pipeline.Plan) -> None:
    def old(frame: Any) -> Any:
        if "units" not in frame:
            return frame
        return {**frame, "units": {path: units for path, units in frame["units"].items() if path.endswith("/0")}}

    rewrite(levels, old)
    before = {*RECORDS.iterdir()}
    assert (status("maps.zarr").done, status("maps.zarr").missing) == (18, 0)
    assert check(Place.of("maps.zarr")).passed
    assert pipeline.run(levels, "serial", resume=True).complete
    assert not any(b"finished" in path.read_bytes() for path in {*RECORDS.iterdir()} - before)


def test_damaged_metadata_are_refused_and_the_store_is_left_as_it_is(plan: pipeline.Plan) -> None:
    Path("maps.zarr/image/pool/zarr.json").write_text("{")
    with pytest.raises(OutputError, match=r"pool: its metadata is damaged .*; begin anew with --overwrite"):
        pipeline.run(plan, "serial", resume=True)
    assert status("maps.zarr").state == "complete"


def maps() -> dict[str, bytes]:
    """What stands in the store, but for what tells of its runs."""
    return {str(path): path.read_bytes() for path in Path("maps.zarr/image").rglob("*") if path.is_file()}
