"""Faults of real processes, and bad images: a run ends with the right bits or a named failure, and goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

import pipeline

Call = Callable[..., tuple[int, str, str]]


def report(out: str) -> dict:
    return json.loads(out.splitlines()[-1])


def test_a_bad_image_of_several_fails_alone_and_resume_does_only_it(small: Path, haloflow: Call) -> None:
    image = zarr.open_array("image.zarr", mode="r")[:]
    for name in ("a", "b", "c"):
        zarr.create_array(f"many/{name}.zarr", data=image, chunks=(1, 16, 16))
    (small / "many/b.zarr/zarr.json").rename(small / "kept")
    zarr.create_array("many/tiny.zarr", shape=(2, 1, 1), dtype="uint8")
    words = ["run", "config.yaml", "--cluster", "serial", "--json", "--set", "input.images='many/*.zarr'"]
    code, out, _ = haloflow(*words)
    told = report(out)
    assert (code, told["complete"], told["images"]) == (3, False, 4)
    assert [f["image"] for f in told["failures"]] == ["many/b.zarr", "many/tiny.zarr"]
    assert "is not a Zarr image" in told["failures"][0]["reason"]
    assert "cannot be run: many/b.zarr" in haloflow("plan", "config.yaml", "--set", "input.images='many/*.zarr'")[1]
    (small / "kept").rename(small / "many/b.zarr/zarr.json")
    (small / "many/tiny.zarr/zarr.json").unlink()
    (small / "many/tiny.zarr").rmdir()
    code, out, _ = haloflow(*words, "--resume")
    told = report(out)
    assert (code, told["complete"], told["done"], told["resumed"]) == (0, True, 3, 2)
    stores = [zarr.open_array(f"maps.zarr/{name}/pool/0", mode="r")[:] for name in ("a", "b", "c")]
    assert stores[0].any()
    assert all(np.array_equal(stores[0], s) for s in stores)


@pytest.mark.parametrize(("version", "name"), [("0.5", "zarr.json"), ("0.4", ".zattrs")])
@pytest.mark.parametrize("left", ["", "{", "{}"])
def test_what_is_done_is_not_removed_where_a_store_does_not_say_of_which_run_it_is(
    small: Path, haloflow: Call, version: str, name: str, left: str
) -> None:
    words = ["run", "config.yaml", "--cluster", "serial", "--set", f"output.ome_zarr={version}"]
    assert haloflow(*words)[0] == 0
    before = {path: path.read_bytes() for path in Path("maps.zarr/image").rglob("*") if path.is_file()}
    whole = Path("maps.zarr", name).read_bytes()
    Path("maps.zarr", name).write_text(left)
    code, _, err = haloflow(*words, "--resume")
    assert (code, "what maps.zarr says of its run is damaged; bring its metadata back, or begin" in err) == (2, True)
    assert {path: path.read_bytes() for path in before} == before
    Path("maps.zarr", name).write_bytes(whole)
    assert "done (1 of them before)" in haloflow(*words, "--resume")[1]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_lets_what_is_under_way_be_recorded(
    small: Path, haloflow: Call, number: int, expected: int
) -> None:
    """The whole group of processes is interrupted, as Ctrl-C at a terminal does."""
    image = np.random.default_rng(1).integers(0, 256, (2, 1800, 1800)).astype(np.uint8)
    zarr.create_array("image.zarr", data=image, chunks=(1, 100, 100), overwrite=True)
    small_tasks = "import pipeline.planner as p; p.TASK_PIXELS = 0; from pipeline.cli import main; main()"
    run = [sys.executable, "-c", small_tasks]
    words = ["run", "config.yaml", "--set", "output.chunks=15", "--workers", "1"]
    child = subprocess.Popen([*run, *words], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(Path().glob("maps.zarr/image/pool/0/c/0/*/*")):
        assert child.poll() is None
        time.sleep(0.01)
    os.killpg(child.pid, number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == expected, err
    assert "Traceback" not in err
    told = json.loads(haloflow("status", "maps.zarr", "--json")[1])
    assert (told["state"], told["done"] > 0, told["missing"] > 0) == ("interrupted", True, True)
    written = len(list(Path().glob("maps.zarr/image/pool/0/c/0/*/*")))
    assert told["done"] == written  # nothing was written that is not recorded
    _, left = psutil.wait_procs([p for p in psutil.process_iter() if _is_of(p, child.pid)], timeout=15)
    assert not [p for p in left if _is_of(p, child.pid)]  # workers see within seconds that nobody is there any more
    words = [*words[2:4], "--memory", "2GB", "--cluster", "serial"]
    assert haloflow("run", "config.yaml", *words, "--resume")[0] == 0
    assert np.array_equal(zarr.open_array("maps.zarr/image/pool/0")[:], pipeline.load("config.yaml").stack(image))


def _is_of(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False
