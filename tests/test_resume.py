"""Records and resume: what is recorded is not made again, what is not is, and the bits are the same."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline import stack
from pipeline.errors import OutputError
from pipeline.execute import running, task
from pipeline.status import check
from pipeline.storage import chunkfiles, lock, recorded, target
from pipeline.storage.identity import DECIDING, digest
from pipeline.storage.place import Place
from pipeline.storage.records import Segments, Units, units_in

Call = Callable[..., tuple[int, str, str]]

UNITS = 3 * 3
CUT = ["--cluster", "serial"]


@pytest.fixture
def many(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine tasks of a chunk each."""
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    return small


def bits(store: str = "maps.zarr") -> bytes:
    return zarr.open_array(f"{store}/image/pool/0", mode="r")[:].tobytes()


def of(store: str = "maps.zarr") -> list[Units]:
    return [*units_in(Place.of(store), digest(target.recorded(Place.of(store))["identity"]))]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that tasks make from now on."""
    made = []
    compute = task.compute

    def counting(*words: object) -> object:
        made.append(1)
        return compute(*words)

    monkeypatch.setattr(task, "compute", counting)
    return made


def report(out: str) -> dict:
    return json.loads(out.splitlines()[-1])


def test_a_run_that_is_complete_has_a_record_of_every_unit_and_resumes_to_nothing(
    many: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    before = bits()
    assert sorted(units.first for units in of()) == [(0, row, column) for row in range(3) for column in range(3)]
    for units in of():
        path = Path(f"maps.zarr/{units.array}/c/{'/'.join(map(str, units.first))}")
        assert units.sizes == (path.stat().st_size,)
        assert units.sums == (chunkfiles.checksum(path.read_bytes()),)
    made = counted(monkeypatch)
    code, out, _ = haloflow("run", "config.yaml", *CUT, "--resume", "--json")
    told = report(out)
    assert (code, told["complete"], told["done"], told["resumed"]) == (0, True, UNITS, UNITS)
    assert not made
    assert bits() == before


def test_only_what_has_no_record_is_made_again_and_a_chunk_that_exists_proves_nothing(
    many: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (many / "image.zarr/c/0/2/2").rename(many / "kept")
    (many / "image.zarr/c/0/2/2").write_bytes(b"not a chunk")
    code, out, _ = haloflow("run", "config.yaml", *CUT, "--json")
    failed = len(report(out)["failures"])
    assert (code, 0 < failed < UNITS) == (3, True)
    assert zarr.open_group("maps.zarr", mode="r").attrs["_haloflow"]["complete"] is False
    (many / "kept").replace(many / "image.zarr/c/0/2/2")
    # Whole, readable, and wrong: a chunk of another run.
    shutil.copy(many / "maps.zarr/image/pool/0/c/0/0/0", many / "maps.zarr/image/pool/0/c/0/2/2")
    made = counted(monkeypatch)
    code, out, _ = haloflow("run", "config.yaml", *CUT, "--resume", "--json")
    assert (code, report(out)["resumed"], len(made)) == (0, UNITS - failed, failed)
    assert not list(many.rglob("*.partial"))
    window = zarr.open_group("maps.zarr/image/pool", mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
    resumed = bits()
    assert haloflow("run", "config.yaml", *CUT, "--overwrite")[0] == 0
    assert bits() == resumed
    # The ranges of what was done before have survived.
    again = zarr.open_group("maps.zarr/image/pool", mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
    assert window == again


def test_records_are_of_write_units_whatever_the_tasks_were(small: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    whole = bits()
    planned = pipeline.plan(pipeline.load("config.yaml"))
    assert planned.tasks == 1
    for segment in Path("maps.zarr/_haloflow/records").iterdir():
        segment.unlink()
    record = Segments(Place.of("maps.zarr"), digest(planned.identity), 9).begin()
    record.append([Units("image/pool/0", (0, 0, 0), (1, 2, 3), (1,) * 6, (0,) * 6)])
    record.close()
    code, out, _ = haloflow("run", "config.yaml", *CUT, "--resume", "--json")
    assert (code, report(out)["resumed"]) == (0, 0)  # the one task had units without a record
    assert bits() == whole


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("layers.1.stride=3", "layers[1].stride: [2, 2] → [3, 3]"),
        ("features.edge={rows: [[-1, 2], [3, 5]]}", "features.edge: "),
        ("input.black=3", "input.black: None → 3"),
        ("output.dtype=float16", "output.dtype: float32 → float16"),
        ("output.chunks=8", "output.chunks"),
    ],
)
def test_another_config_is_refused_with_the_difference(
    small: Path, haloflow: Call, change: str, difference: str
) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    before = {p: p.stat().st_mtime_ns for p in Path("maps.zarr").rglob("*")}
    code, _, err = haloflow("run", "config.yaml", *CUT, "--resume", "--set", change)
    assert code == 2
    assert "begun by a run that differs; begin anew with --overwrite" in err
    assert difference in err
    assert {p: p.stat().st_mtime_ns for p in Path("maps.zarr").rglob("*")} == before


def test_another_kernel_or_version_is_refused_and_another_machine_setting_is_not(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    assert haloflow("run", "config.yaml", *CUT, "--resume", "--memory", "4GB", "--quiet")[0] == 0
    assert "kernel: None → numpy" in haloflow("run", "config.yaml", *CUT, "--resume", "--kernel", "numpy")[2]
    monkeypatch.setattr("pipeline.storage.identity.own", lambda: dict.fromkeys(DECIDING, "9.9"))
    assert "versions.numba: " in haloflow("run", "config.yaml", *CUT, "--resume")[2]


def test_another_kernel_that_nobody_asked_for_is_refused_too(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    choose = stack.choose
    monkeypatch.setattr(stack, "choose", lambda operation, forced: choose(operation, forced or "numpy"))
    code, _, err = haloflow("run", "config.yaml", *CUT, "--resume")
    assert (code, "kernel of 'match': numba → numpy\n" in err) == (2, True)
    assert "begun by a run that differs; begin anew with --overwrite" in err


def test_an_input_that_was_rewritten_is_refused_at_resume_and_is_no_success(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0

    def rewrite() -> None:
        zarr.open_array("image.zarr", mode="r+").attrs["changed"] = time.time()

    rewrite()
    code, _, err = haloflow("run", "config.yaml", *CUT, "--resume")
    assert (code, "image.zarr: has changed since the run in maps.zarr was begun" in err) == (2, True)
    compute = task.compute
    monkeypatch.setattr(task, "compute", lambda *words: (rewrite(), compute(*words))[1])
    code, out, _ = haloflow("run", "config.yaml", *CUT, "--overwrite", "--json")
    told = report(out)
    assert (code, told["complete"]) == (3, False)
    assert told["failures"][0]["reason"] == "changed while the run read it"
    assert zarr.open_group("maps.zarr", mode="r").attrs["_haloflow"]["complete"] is False


def test_an_empty_chunk_of_another_run_is_removed(small: Path) -> None:
    array = zarr.create_array("a", shape=(4, 4), chunks=(4, 4), dtype="f4", fill_value=0)
    array[:] = 1
    files = chunkfiles.ChunkFiles.of(array)
    assert files.write((0, 0), np.zeros((4, 4), "f4")) == (0, 0)
    assert not zarr.open_array("a", mode="r")[:].any()


def test_records_of_a_boot_that_is_over_are_held_against_the_data(
    many: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    before = bits()
    Path("maps.zarr/image/pool/0/c/0/1/1").write_bytes(b"")  # as after a power cut
    monkeypatch.setattr(recorded, "boot", lambda: (os.uname().nodename, "another boot"))
    made = counted(monkeypatch)
    assert haloflow("run", "config.yaml", *CUT, "--resume")[0] == 0
    assert len(made) == 1
    assert bits() == before


def test_status_and_checksums(many: Path, haloflow: Call) -> None:
    assert "no run has begun a store there" in haloflow("status", "maps.zarr")[2]
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    told = json.loads(haloflow("status", "maps.zarr", "--json")[1])
    assert (told["state"], told["done"], told["missing"], told["failed"]) == ("complete", UNITS, 0, 0)
    code, out, _ = haloflow("verify", "config.yaml", "--checksums", "--json")
    assert (code, json.loads(out)["units"], json.loads(out)["faults"]) == (0, UNITS, [])
    chunk = Path("maps.zarr/image/pool/0/c/0/1/1")
    data = chunk.read_bytes()
    for wrong, words in [
        (data[:-1] + bytes([data[-1] ^ 1]), "has another checksum"),
        (data[:-1], f"has {len(data) - 1} bytes, and {len(data)} were written"),
        (None, "is missing"),
    ]:
        chunk.unlink() if wrong is None else chunk.write_bytes(wrong)
        code, out, _ = haloflow("verify", "config.yaml", "--checksums")
        assert code == 3
        assert f"image/pool/0/c/0/1/1 {words}" in out
    (many / "image.zarr/c/0/2/2").write_bytes(b"not a chunk")
    assert haloflow("run", "config.yaml", *CUT, "--overwrite")[0] == 3
    told = json.loads(haloflow("status", "maps.zarr", "--json")[1])
    assert told["state"] == "failed"
    assert told["done"] + told["missing"] == UNITS
    assert 0 < told["failed"] == told["missing"]


def test_damaged_metadata_of_a_map_are_named(many: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    Path("maps.zarr/image/pool/zarr.json").write_bytes(b"")
    code, _, err = haloflow("run", "config.yaml", *CUT, "--resume")
    assert (code, "maps.zarr/image/pool: its metadata is damaged" in err) == (2, True)
    Path("maps.zarr/image/pool/0/zarr.json").write_bytes(b"")
    code, out, _ = haloflow("verify", "config.yaml", "--checksums")
    assert (code, "image/pool/0: its metadata cannot be read" in out) == (3, True)


@pytest.mark.parametrize("name", ["000001--earlier", "000009-later"])
def test_a_unit_that_was_written_twice_counts_once_and_is_right_where_one_record_says_so(
    many: Path, haloflow: Call, name: str
) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    record = Segments(Place.of("maps.zarr"), digest(pipeline.plan(pipeline.load("config.yaml")).identity), 9)
    segment = record.begin()
    for nth in (0, 1):
        segment.append([Units("image/pool/0", (0, nth, 0), (1, 1, 1), (1,), (0,))])
    segment.close()
    (made,) = Path("maps.zarr/_haloflow/records").glob("000009-*")
    made.rename(made.with_name(name))
    told = json.loads(haloflow("status", "maps.zarr", "--json")[1])
    assert (told["done"], told["missing"]) == (UNITS, 0)
    code, out, _ = haloflow("verify", "config.yaml", "--checksums", "--json")
    assert (code, json.loads(out)["units"], json.loads(out)["faults"]) == (0, UNITS + 2, [])
    Path("maps.zarr/image/pool/0/c/0/0/0").write_bytes(b"neither")
    code, out, _ = haloflow("verify", "config.yaml", "--checksums", "--json")
    assert (code, [fault.split()[0] for fault in json.loads(out)["faults"]]) == (3, ["image/pool/0/c/0/0/0"])


def test_a_check_opens_each_array_once(many: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert haloflow("run", "config.yaml", *CUT)[0] == 0
    opened, open_array = [], zarr.open_array

    def counting(*words: Any, **named: Any) -> Any:
        opened.append(1)
        return open_array(*words, **named)

    monkeypatch.setattr("pipeline.storage.intact.zarr.open_array", counting)
    assert check(Place.of("maps.zarr")).units == UNITS
    assert len(opened) == 1


def test_a_whole_store_is_left_as_it_is(small: Path, haloflow: Call) -> None:
    levels = ("--set", "output.pyramid=mean")
    assert haloflow("run", "config.yaml", *CUT, *levels)[0] == 0
    before = {p: p.stat().st_mtime_ns for p in Path("maps.zarr").rglob("*/c/**/*") if p.is_file()}
    assert haloflow("run", "config.yaml", *CUT, *levels, "--resume")[0] == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_what_another_run_made_since_the_look_is_not_replaced(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    acquire = running.acquire

    def late(store: Place) -> lock.Lock:
        monkeypatch.setattr(running, "acquire", acquire)
        assert pipeline.run(plan, "serial", overwrite=Path("maps.zarr").exists()).complete
        return acquire(store)

    for resume in (False, True):
        monkeypatch.setattr(running, "acquire", late)
        with pytest.raises(OutputError, match="another run has just written"):
            pipeline.run(plan, "serial", resume=resume)
        assert target.recorded(plan.store)["complete"] is True
        assert of()
