"""The benchmark's quick form: it runs, its figures have their form, and all who compete agree. No times are judged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of two jobs."""
    folder = tmp_path_factory.mktemp("bench")
    words = [sys.executable, "-m", "benchmark", "narrow", "large31", "--quick", "--side", "512"]
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(
        [*words, "--folder", "data", "--out", "out"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def contestants(bench: Path) -> dict[tuple[str, str], dict[str, Any]]:
    data = json.loads((bench / "bench.json").read_text())
    return {(job["name"], found["name"]): found for job in data["jobs"] for found in job["contestants"]}


def test_says_on_what_it_was_measured(bench: Path) -> None:
    data = json.loads((bench / "bench.json").read_text())
    machine = data["machine"]
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert machine["date"]
    assert machine["versions"]["zarr"]
    assert data["rounds"] == 1
    assert [(job["name"], job["side"]) for job in data["jobs"]] == [("narrow", 512), ("large31", 512)]


def test_all_ran_once_and_agree(bench: Path) -> None:
    found = contestants(bench)
    assert {name for job, name in found if job == "narrow"} == {"haloflow", "limit", "onnxruntime"}
    assert {name for job, name in found if job == "large31"} == {"haloflow", "limit", "scipy-fft", "scipy-correlate"}
    for (_, name), result in found.items():
        assert not result["missing"], result
        assert not result["failed"], result
        assert len(result["seconds"]) == 1
        assert result["speed_ratio"] > 0
        assert result["agrees"]
        assert (result["difference"] is None) == (name in ("haloflow", "limit"))


def test_haloflow_was_verified_against_float64(bench: Path) -> None:
    data = json.loads((bench / "bench.json").read_text())
    assert all(job["verified"] < 1e-5 for job in data["jobs"])


def test_says_what_two_workers_can_do_at_most(bench: Path) -> None:
    data = json.loads((bench / "bench.json").read_text())
    assert [len(job["doubling"]) for job in data["jobs"]] == [2, 2]  # the round that warms up, and the one that counts
    assert all(0.5 < found < 8 for job in data["jobs"] for found in job["doubling"])
    assert "two workers that only count: " in (bench / "bench.md").read_text()


def test_every_target_has_its_verdict(bench: Path) -> None:
    data = json.loads((bench / "bench.json").read_text())
    targets = {(t["job"], t["what"]): t for t in data["targets"]}
    assert targets["narrow", "speed ÷ limit"]["bound"] == 0.8
    assert targets["narrow", "speed ÷ limit"]["met"] in (True, False)
    assert targets["narrow", "speed ÷ dask-image"]["met"] is None  # it did not compete
    assert set(targets["large31", "speed ÷ scipy-fft"]) >= {"reached", "low", "high"}


def test_table_and_plot_are_there(bench: Path) -> None:
    table = (bench / "bench.md").read_text()
    assert "| narrow | speed ÷ limit | ≥ 0.8 |" in table
    assert "| **large31** | 4 features of 31²; 512² |" in table
    assert (bench / "bench.png").read_bytes().startswith(b"\x89PNG")
