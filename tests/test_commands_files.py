"""``haloflow ingest`` and ``haloflow export`` at the command line: words, exit codes, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from tests.ingested import names, noise

CONFIG = """
input: {images: a.zarr}
features: {edge: {rows: [[-1, 1]]}}
layers: [{type: convolution, name: match, features: [edge], match: sum}, {type: pool}]
output: {store: maps.zarr, layers: [match, pool]}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(CONFIG)


def test_from_a_tiff_to_a_tiff_of_maps(haloflow):
    values = noise(120, 130)
    tifffile.imwrite("a.tif", values, resolution=(5000, 5000), resolutionunit="CENTIMETER")
    words = ["--chunks", "32", "--shards", "64", "--compression", "zstd", "--level", "1", "--workers", "2"]
    code, out, err = haloflow("ingest", "a.tif", "a.zarr", *words)
    assert (code, err) == (0, "")
    assert "1 × 120 × 130 uint8, chunks 32 × 32 in shards of 64 × 64" in out
    code, out, _ = haloflow("ingest", "a.tif", "a.zarr", *words, "--resume", "--json")
    assert code == 0
    assert json.loads(out)["resumed"] == [2, 2]
    assert haloflow("run", "job.yaml", "--cluster", "serial", "--kernel", "numpy")[0] == 0
    code, out, err = haloflow("export", "maps.zarr/a/match", "match.tif", "--channel", "edge", "--quiet")
    assert (code, out, err) == (0, "", "")
    exact = np.diff(values.astype(float), axis=1) / 127.5
    assert np.allclose(tifffile.imread("match.tif"), exact, atol=1e-5)
    with tifffile.TiffFile("match.tif") as tif:
        assert 'PhysicalSizeX="2.0"' in tif.ome_metadata
    assert haloflow("export", "maps.zarr/a/match", "part.npy", "--region", "3:50, 20:129")[0] == 0
    assert np.allclose(np.load("part.npy")[0], exact[3:50, 20:129], atol=1e-5)
    assert haloflow("export", "maps.zarr/a/match", "part.png", "--region", "3:50,20:129", "--window=-2:2")[0] == 0
    shown = np.asarray(PIL.Image.open("part.png")).astype(float)
    assert np.abs(shown - (exact[3:50, 20:129] + 2) / 4 * 255).max() < 0.51


def test_bad_input_is_one_clear_message_and_nothing_written(haloflow):
    tifffile.imwrite("a.tif", noise(300, 301), rowsperstrip=16, compression="zlib")
    data = Path("a.tif").read_bytes()
    Path("cut.tif").write_bytes(data[: len(data) * 2 // 3])
    PIL.Image.fromarray(noise(90, 91)).save("a.png")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:2000])
    PIL.Image.fromarray(noise(90, 91)).save("a.jpg")
    Path("cut.jpg").write_bytes(Path("a.jpg").read_bytes()[:900])
    before = names(Path())
    for words, told in (
        (["ingest", "cut.tif", "b.zarr"], "cut.tif: page 1, strip or tile"),
        (["ingest", "cut.png", "b.zarr"], "cut.png: cannot be read"),
        (["ingest", "cut.jpg", "b.zarr"], "cut.jpg: cannot be read"),
        (["ingest", "a.tif", "b.zarr", "--shards", "1000"], "multiple"),
        (["ingest", "a.tif", "ftp://b/b.zarr"], "ftp"),
        (["export", "none.zarr", "b.tif"], "none.zarr: there is no such image"),
    ):
        code, out, err = haloflow(*words)
        assert (code, out) == (2, ""), words
        assert told in err
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        assert names(Path()) == before
    for words in (["--region", "1:2"], ["--window", "1"]):
        assert haloflow("export", "a.zarr", "b.tif", *words)[0] == 2


def test_an_ingest_that_was_killed_is_no_input_until_it_is_resumed(haloflow):
    values = noise(1500, 1501)
    tifffile.imwrite("a.tif", values, rowsperstrip=16, compression="zlib")
    command = [sys.executable, "-m", "pipeline.cli", "ingest", "a.tif", "a.zarr", "--chunks", "32", "--quiet"]
    child = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not list(Path("a.zarr").glob("_haloflow_ingest/*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL
    for words in (
        ["plan", "job.yaml"],
        ["run", "job.yaml", "--cluster", "serial"],
        ["info", "a.zarr"],
        ["status", "a.zarr"],
    ):
        code, _, err = haloflow(*words)
        assert code == 2
        assert "unfinished ingest; finish it with 'haloflow ingest a.tif a.zarr --resume'" in err
    code, out, _ = haloflow("ingest", "a.tif", "a.zarr", "--chunks", "32", "--resume", "--json")
    assert code == 0
    done, total = json.loads(out)["resumed"]
    assert 1 <= done < total == 47
    assert haloflow("export", "a.zarr", "b.npy")[0] == 0
    assert np.array_equal(np.load("b.npy")[0], values)
    assert sorted(names(Path("a.zarr"))) == ["0", "zarr.json"]


def test_an_interrupted_ingest_goes_on(haloflow):
    tifffile.imwrite("a.tif", noise(1500, 1501), rowsperstrip=16, compression="zlib")
    command = [sys.executable, "-m", "pipeline.cli", "ingest", "a.tif", "a.zarr", "--chunks", "32"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path("a.zarr").glob("_haloflow_ingest/*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Traceback" not in err
    code, out, _ = haloflow("ingest", "a.tif", "a.zarr", "--chunks", "32", "--resume", "--json")
    assert code == 0
    assert json.loads(out)["resumed"][0] >= 1


def test_a_path_at_which_nothing_can_stand_is_refused_in_a_line(haloflow):
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    for verb in ("info", "status"):
        for path in ("x" * 300, "folder", "loop", "job.yaml"):
            code, out, err = haloflow(verb, path)
            assert (code, out, len(err.splitlines())) == (2, "", 1)
            assert err.startswith(f"error: {path}: ")
            assert "StorePath" not in err
