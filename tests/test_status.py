"""What is said of stores whose records are missing or damaged: never that all is well, and never a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., tuple[int, str, str]]
RUN = ("run", "config.yaml", "--cluster", "serial", "--kernel", "numpy", "--quiet")


def test_a_store_without_records_is_not_all_as_written(small: Path, haloflow: Call) -> None:
    assert haloflow(*RUN)[0] == 0
    assert haloflow("verify", "config.yaml", "--checksums")[0] == 0
    folder = Path("maps.zarr/_haloflow/records")
    for record in folder.iterdir():  # of the units, and of what was planned: either tells what the other lacks
        kept = record.read_bytes()
        record.write_bytes(b"junk")
        told = json.loads(haloflow("verify", "config.yaml", "--checksums", "--json")[1])
        record.write_bytes(kept)
        lost = "9 of 9 write units have no record" if told["units"] == 0 else "1 of 1 image has no record"
        assert [fault.partition(":")[0] for fault in told["faults"]] == [lost]
    shutil.rmtree(folder)
    code, out, _ = haloflow("verify", "config.yaml", "--checksums")
    assert (code, "1 of 1 image has no record: it is missing or damaged" in out) == (3, True)
    Path("maps.zarr/zarr.json").write_bytes(b"")
    code, out, err = haloflow("verify", "config.yaml", "--checksums")
    assert (code, out, "its record of the run is missing or damaged" in err) == (2, "", True)


@pytest.mark.parametrize(
    ("place", "value"),
    [(("plan", "images"), 3), (("plan", "images"), [3]), (("report",), "x")],
    ids=str,
)
def test_a_damaged_record_is_said_to_be_one(small: Path, haloflow: Call, place: tuple[str, ...], value: Any) -> None:
    assert haloflow(*RUN)[0] == 0
    head = json.loads(Path("maps.zarr/zarr.json").read_bytes())
    part = head["attributes"]["_haloflow"]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    Path("maps.zarr/zarr.json").write_text(json.dumps(head))
    code, out, err = haloflow("info", "maps.zarr")
    assert (code, out, err) == (2, "", "error: maps.zarr: its record of the run is damaged\n")
    code, _, err = haloflow("verify", "config.yaml")
    assert (code, err) == (0, "")


def test_tables_are_where_the_store_is_now_and_are_read_again(small: Path, haloflow: Call) -> None:
    words = ("--set", "output.summaries={layers: [pool]}", "--set", "output.layers=[]")
    assert haloflow(*RUN, *words)[0] == 0
    code, out, _ = haloflow("verify", "config.yaml", *words, "--checksums")
    assert (code, out) == (0, "maps.zarr: 0 write units, 0 B and 1 table read again: all as written\n")
    shutil.move("maps.zarr", "elsewhere.zarr")
    told = json.loads(haloflow("info", "elsewhere.zarr", "--json")[1])
    (table,) = told["tables"]
    assert Path(table).is_file()
    assert table.startswith("elsewhere.zarr/")
    assert f"  table {table}\n" in haloflow("info", "elsewhere.zarr")[1]
