"""The command line: its words, exit codes and messages; bad input leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr

import pipeline
from pipeline.execute.interrupts import Interrupts
from pipeline.kernels import BACKENDS
from tests.conftest import ROOT, drawing_of_x

Call = Callable[..., tuple[int, str, str]]

MATCH = """\
 0.77 -0.11  0.11  0.33  0.55 -0.11  0.33
-0.11  1.00 -0.11  0.33 -0.11  0.11 -0.11
 0.11 -0.11  1.00 -0.33  0.11 -0.11  0.55
 0.33  0.33 -0.33  0.55 -0.33  0.33  0.33
 0.55 -0.11  0.11 -0.33  1.00 -0.11  0.11
-0.11  0.11 -0.11  0.33 -0.11  1.00 -0.11
 0.33 -0.11  0.55  0.33  0.11 -0.11  0.77"""
POOL = """\
1.00 0.33 0.55 0.33
0.33 1.00 0.33 0.55
0.55 0.33 1.00 0.11
0.33 0.55 0.11 0.77"""


def cut(maps: np.ndarray) -> list[list[str]]:
    """Cut to two decimals, as the design writes its oracle; no digit is rounded up."""
    return [[f"{np.trunc(np.float64(v) * 100) / 100:.2f}" for v in row] for row in maps]


def test_the_x_of_the_design_digit_for_digit(project: Path, haloflow: Call) -> None:
    stored = zarr.open_array("tests/data/xo/x.zarr", mode="r")[:]
    assert np.array_equal(stored, drawing_of_x())
    code, out, _ = haloflow("run", "configs/xo.yaml", "--cluster", "serial")
    assert code == 0
    assert "2 of 2 tasks done" in out
    results = zarr.open_group("results/xo.zarr", mode="r")
    expected = {
        "match": [row.split() for row in MATCH.splitlines()],
        "pool": [row.split() for row in POOL.splitlines()],
    }
    for layer, digits in expected.items():
        assert cut(results[f"x/{layer}/0"][0]) == digits
    job = pipeline.load("configs/xo.yaml")
    image = drawing_of_x()
    for layer, digits in expected.items():
        for kernel in (None, *BACKENDS):
            assert cut(job.stack(image, layer, kernel)[0]) == digits
            lazy = job.stack(da.from_array(image, chunks=((1, 3, 5), (2, 7))), layer, kernel)
            assert cut(lazy.compute(scheduler="synchronous")[0]) == digits


def test_a_run_verified_and_described(small: Path, haloflow: Call) -> None:
    assert haloflow("validate", "config.yaml")[0] == 0
    code, out, _ = haloflow("plan", "config.yaml")
    assert code == 0
    for word in ("match", "pool", "numba", "halo", "receptive field", "tasks", "bytes", "worker"):
        assert word in out
    code, out, _ = haloflow("run", "config.yaml", "--cluster", "serial", "--json")
    report = json.loads(out.splitlines()[-1])
    assert (code, report["complete"], report["failures"]) == (0, True, [])
    assert report["bytes_written"] == 19 * 18 * 4
    code, out, _ = haloflow("verify", "config.yaml", "--json")
    found = json.loads(out)
    assert (code, found["passed"]) == (0, True)
    assert 0 <= found["worst"] < 1e-6
    code, out, _ = haloflow("info", "maps.zarr")
    assert (code, "complete" in out, "image/pool" in out) == (0, True, True)
    assert "2 × 40 × 37 uint8" in haloflow("info", "image.zarr")[1]
    assert haloflow("run", "config.yaml", "--cluster", "serial", "--quiet", "--overwrite")[1] == ""


def test_a_store_that_was_tampered_with_is_not_verified(small: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
    zarr.open_array("maps.zarr/image/pool/0", mode="r+")[0, 0, 3] += 0.01
    code, out, err = haloflow("verify", "config.yaml")
    assert code == 3
    assert (out + err).count("image/pool y [0, 19), x [0, 18)") == 1
    assert err == "error: maps.zarr is not what it should be; make it anew with 'haloflow run --overwrite'\n"
    code, out, err = haloflow("verify", "config.yaml", "--quiet")
    assert (code, out, err.count("image/pool y [0, 19), x [0, 18)")) == (3, "", 1)


def test_a_store_of_another_config_is_not_blamed(small: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
    code, out, err = haloflow("verify", "config.yaml", "--set", "input.white=200")
    assert (code, "made with another config: input.white: None → 200.0" in out) == (3, True)
    assert err == "error: maps.zarr was made with another config; verify it with that one, or the same --set\n"
    code, _, err = haloflow("verify", "config.yaml", "--set", "output.dtype=float16")
    assert (code, "made with another config: output.dtype: float32 → float16" in err) == (2, True)


def test_a_damaged_chunk_is_named_by_verify_and_by_a_crop(small: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
    (small / "maps.zarr/image/pool/0/c/0/0/0").write_bytes(b"short")
    code, out, err = haloflow("verify", "config.yaml")
    assert (code, "Traceback" in err) == (3, False)
    assert "cannot be read: image/pool y [0, 19), x [0, 18)" in out
    (small / "image.zarr/c/0/0/0").write_bytes(b"short")
    crop = "features.edge={crop: {image: image.zarr, y: 0, x: 0, height: 3, width: 3}}"
    code, _, err = haloflow("validate", "config.yaml", "--set", crop)
    assert code == 2
    assert "feature 'edge': image.zarr: y [0, 3), x [0, 3) cannot be read" in err


def test_a_quiet_run_tells_what_failed(small: Path, haloflow: Call) -> None:
    (small / "image.zarr/c/0/0/0").write_bytes(b"short")
    code, out, err = haloflow("run", "config.yaml", "--cluster", "serial", "--quiet")
    assert (code, out) == (3, "")
    first, second = err.splitlines()
    assert first == "error: 1 failed (tasks, or whole images); nothing is complete: again with --resume"
    assert second.startswith("error: failed: image.zarr, task 0 at input pixel (0, 0): ")
    code, out, err = haloflow("run", "config.yaml", "--cluster", "serial", "--resume")
    assert (code, out.count("failed: image.zarr"), err.count("failed: image.zarr")) == (3, 1, 0)


def test_overwriting_what_a_feature_is_cut_from_is_refused(small: Path, haloflow: Call) -> None:
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
    crop = "features.cut={crop: {image: maps.zarr/image/pool, y: 0, x: 0, height: 3, width: 3}}"
    code, _, err = haloflow("run", "config.yaml", "--overwrite", "--set", crop)
    assert code == 2
    assert "the input maps.zarr/image/pool lies inside maps.zarr" in err
    assert haloflow("plan", "config.yaml", "--set", crop)[2] == err
    assert haloflow("verify", "config.yaml")[0] == 0


def test_a_failed_task_is_named_and_the_rest_completes(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)  # as many tasks as there are chunks to write
    assert haloflow("run", "config.yaml", "--cluster", "serial")[0] == 0
    complete = zarr.open_array("maps.zarr/image/pool/0", mode="r")[:]
    (small / "image.zarr/c/0/2/2").write_bytes(b"not a chunk")
    code, out, err = haloflow("run", "config.yaml", "--cluster", "serial", "--overwrite", "--json")
    report = json.loads(out.splitlines()[-1])
    assert code == 3
    assert "failed" in err
    assert not report["complete"]
    assert 0 < len(report["failures"]) < report["tasks"]
    assert report["failures"][0]["image"] == "image.zarr"
    kept = zarr.open_group("maps.zarr", mode="r")
    assert kept.attrs["_haloflow"]["complete"] is False
    left = kept["image/pool/0"][:]
    same = left == complete
    assert same.any()
    assert not same.all()
    assert np.all(left[~same] == 0)


BROKEN = [
    (["--set", "layers.0.strid=2"], "--set: ", "layers[0].strid: unknown key; did you mean 'stride'?"),
    (["--set", "layers.0.features=[edgy]"], "--set: ", "no feature 'edgy'; did you mean 'edge'?"),
    (["--set", "features.edge={file: none.npy}"], "feature 'edge'", "there is no file none.npy"),
    (
        ["--set", "features.edge={crop: {image: image.zarr, y: 0, x: 0, height: 39, width: 41}}"],
        "feature 'edge'",
        "image.zarr is 40 × 37",
    ),
    (
        ["--set", "layers.0.features=[deep]", "--set", "layers.0.channels=each"],
        "feature 'deep'",
        "2 channels",
    ),
    (["--set", "layers.0.dilation=37"], "feature 'edge' spans 38 × 38", "the map is 40 × 37"),
    (["--set", "input.images=none.zarr"], "none.zarr", "there is no such image"),
    (["--set", "input.images=config.yaml"], "config.yaml", "haloflow ingest"),
    (["--set", "input.level=1"], "image.zarr", "has no levels"),
    (["--set", "output.store=image.zarr/maps"], "output.store", "lies inside the input image.zarr"),
    (["--set", "output.store=image.zarr", "--overwrite"], "output.store", "lies inside the input image.zarr"),
    (["--set", "output.layers=[pool, pool]"], "output.layers", "'pool' stands twice"),
    (["--set", "input.images=*.zarr"], "is not valid YAML", "goes in quotes"),
    (["--set", "layers.1.window=5000"], "layer 'pool': pool window spans 5000", "at most 4096"),
    (
        ["--set", "features.edge={crop: {image: there/maps.zarr, y: 0, x: 0, height: 2, width: 2}}"],
        "feature 'edge'",
        "there is no such image",
    ),
    (["--set", "output.store=there"], "output.store", "there exists already; give --overwrite"),
    (["--set", "output.store=there", "--overwrite"], "output.store", "was not made by haloflow"),
    (["--memory", "200MB"], "a worker holds 256.0 MiB before it has a single pixel", "--memory"),
    (["--memory", "much"], "memory 'much'", "such as 2GB"),
    (["--kernel", "cuda"], "kernel 'cuda'", "there are fft, ncc, numba, numpy, onnxruntime"),
    (["--cluster", "tcp://127.0.0.1:9"], "--cluster tcp://127.0.0.1:9", "no scheduler answers"),
    (["--cluster", "slurm"], "--cluster slurm", "expected local, threads, serial"),
]


@pytest.mark.parametrize(("words", "where", "what"), BROKEN, ids=[" ".join(b[0])[-40:] for b in BROKEN])
def test_bad_input_is_one_clear_message_and_nothing_written(
    small: Path, haloflow: Call, words: list[str], where: str, what: str
) -> None:
    (small / "there").mkdir()
    (small / "there/mine.txt").write_text("mine")
    before = sorted(small.rglob("*"))
    code, out, err = haloflow("run", "config.yaml", *words)
    assert code == 2
    assert out == ""
    assert where in err
    assert what in err
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert sorted(small.rglob("*")) == before


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['haloflow', '--help']\n"
        "from pipeline.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'zarr', 'dask', 'numba', 'onnxruntime', 'pydantic', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for command in ("run", "plan", "validate", "schema", "ingest", "status", "verify", "info"):
        assert f"\n  {command}" in done.stdout


def test_a_run_loads_only_the_kernels_of_its_stack(small: Path) -> None:
    code = (
        "import sys, pipeline\n"
        "plan = pipeline.plan(pipeline.load('config.yaml'))\n"
        "assert 'ome_zarr_models' not in sys.modules\n"
        "assert pipeline.run(plan, 'serial').complete\n"
        "others = {'onnx', 'onnxruntime', 'scipy.fft', 'scipy.ndimage', 'scipy.special'} & set(sys.modules)\n"
        "assert not others, others"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_signal_that_is_ignored_stays_so() -> None:
    """A shell's scripts have what they start with & ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert not interrupts.heard()
            assert signal.getsignal(signal.SIGTERM) == interrupts._note
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("cluster", ["local", "serial"])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_with_its_code_and_no_traceback(
    small: Path, cluster: str, number: int, expected: int
) -> None:
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "run",
        "config.yaml",
        "--cluster",
        cluster,
        "--workers",
        "1",
    ]
    # Chunks of one pixel: hundreds of files to write, so the run is under way when its store has appeared.
    child = subprocess.Popen(
        [*words, "--set", "output.chunks=1"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    limit = time.monotonic() + 60
    while not Path("maps.zarr/image/pool/0/zarr.json").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(child.pid, number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == expected, err
    assert "Traceback" not in err
    assert zarr.open_group("maps.zarr", mode="r").attrs["_haloflow"]["complete"] is False


def test_schema_and_usage(haloflow: Call) -> None:
    code, out, _ = haloflow("schema")
    assert code == 0
    assert json.loads(out)["title"] == "Haloflow config"
    code, _, err = haloflow("run")
    assert (code, "CONFIG" in err) == (2, True)
    code, _, err = haloflow("fly")
    assert (code, "fly" in err) == (2, True)
