"""What is damaged of a store's records and metadata before a run goes on with it."""

import os
import shutil
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import OutputError
from pipeline.status import check, status
from pipeline.storage.place import Place

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


def test_damaged_metadata_are_refused_and_the_store_is_left_as_it_is(plan: pipeline.Plan) -> None:
    Path("maps.zarr/image/pool/zarr.json").write_text("{")
    with pytest.raises(OutputError, match=r"pool: its metadata is damaged .*; begin anew with --overwrite"):
        pipeline.run(plan, "serial", resume=True)
    assert status("maps.zarr").state == "complete"


def maps() -> dict[str, bytes]:
    """What stands in the store, but for what tells of its runs."""
    return {str(path): path.read_bytes() for path in Path("maps.zarr/image").rglob("*") if path.is_file()}
