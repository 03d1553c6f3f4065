"""What is told of a run: on a terminal, in a log, as JSON, in the store, and by Dask's report."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.commands import progress
from pipeline.execute.watching import Finished, ImageDone, Progress, Started, TaskFailed

Call = Callable[..., tuple[int, str, str]]

SMALL_TASKS = "import pipeline.planner as p; p.TASK_PIXELS = 0; from pipeline.cli import main; main()"


@pytest.fixture
def three(small: Path) -> Path:
    """Three images, of which one is bad and one has a bad chunk."""
    image = zarr.open_array("image.zarr", mode="r")[:]
    for name in "abc":
        zarr.create_array(f"many/{name}.zarr", data=image, chunks=(1, 16, 16))
    Path("many/b.zarr/c/0/2/2").write_bytes(b"not a chunk")
    Path("many/c.zarr/zarr.json").unlink()
    return small


MANY = ["--set", "input.images='many/*.zarr'", "--cluster", "serial"]


def test_json_is_an_event_a_line_and_the_report_is_the_last(
    three: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    monkeypatch.setattr(progress, "EVENTS", 0.0)
    code, out, err = haloflow("run", "config.yaml", *MANY, "--json")
    assert code == 3
    assert "rest is complete" in err
    events = [json.loads(line) for line in out.splitlines()]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("started", "finished")
    assert set(names) == {"started", "progress", "task failed", "image done", "finished"}
    assert events[0] | {"event": 0} == {
        "event": 0, "store": "maps.zarr", "images": 3, "cluster": "serial", "workers": 1, "dashboard": None,
    }  # fmt: skip
    report = events[-1]
    failed = [event for event in events if event["event"] == "task failed"]
    told = [{key: event[key] for key in ("image", "task", "reason")} for event in failed]
    assert sorted(told, key=str) == sorted(report["failures"], key=str)
    done = {event["image"]: event["failed"] for event in events if event["event"] == "image done"}
    assert done == {"many/a.zarr": 0, "many/b.zarr": len(failed) - 1, "many/c.zarr": 1}
    ends = [event for event in events if event["event"] == "progress"]
    assert len(ends) == report["tasks"] + 1  # one is of the image that cannot be run
    last = ends[-1]
    assert (last["done"], last["tasks"], last["failed"]) == (report["done"], report["tasks"], len(failed) - 1)
    assert (last["images"], last["images_done"], last["seconds_left"]) == (3, 3, 0)
    assert (last["bytes_read"], last["bytes_written"]) == (report["bytes_read"], report["bytes_written"])
    assert last["pixels"] == pytest.approx(report["pixels"], abs=1)
    assert last["retries"] == 2 * last["failed"]
    assert all(event["megapixels_per_second"] > 0 for event in ends)


def test_progress_in_json_is_rare_and_ends_as_the_run_did(small: Path, haloflow: Call, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    monkeypatch.setattr(progress, "EVENTS", 1e9)
    code, out, _ = haloflow("run", "config.yaml", "--cluster", "serial", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    first, last = (event for event in events if event["event"] == "progress")
    assert (code, first["done"], last["done"]) == (0, 1, last["tasks"])


TABLES = ["--set", "output.summaries={layers: [match], over: 0.5}"]


def test_whoever_waits_for_tables_is_told_how_far_they_are(
    three: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "config.yaml", *MANY, *TABLES, "--overwrite"]
    monkeypatch.setattr(progress, "LINES", 0.0)
    assert haloflow(*words)[2].splitlines()[4:7] == [f"writing tables: {n} of 3 images" for n in range(3)]
    monkeypatch.setattr(progress, "EVENTS", 0.0)
    events = [json.loads(line) for line in haloflow(*words, "--json")[1].splitlines()]
    assert events[-4:-1] == [{"event": "writing tables", "images": 3, "images_written": n} for n in range(3)]
    # Within a second they are written: what was told last of the tasks is.
    monkeypatch.setattr(progress, "EVENTS", 1e9)
    events = [json.loads(line) for line in haloflow(*words, "--json")[1].splitlines()]
    assert [event["event"] for event in events[-2:]] == ["progress", "finished"]
    assert events[-2]["images_done"] == 3


def test_without_a_terminal_lines_are_few(small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    words = ["run", "config.yaml", "--cluster", "threads", "--workers", "2", "--overwrite"]
    code, _, err = haloflow(*words)
    assert code == 0
    assert re.fullmatch(r"maps\.zarr: 1 image on 2 workers; dashboard http://127\.0\.0\.1:\d+/status\n", err)
    assert haloflow(*words, "--quiet")[2] == ""
    monkeypatch.setattr(progress, "LINES", 0.0)
    lines = haloflow(*words)[2].splitlines()[1:]
    assert len(lines) == 9
    assert re.fullmatch(
        r"9 of 9 tasks, 1 of 1 image, \d+\.\d megapixels/s, read \S+ \S+, written 1\.3 KiB, 0 retries, 0:00 left",
        lines[-1],
    )
    assert progress.LINES == 0.0
    monkeypatch.undo()
    assert 60 / progress.LINES <= 5  # a minute


def test_on_a_terminal_there_is_a_display(small: Path) -> None:
    """A real terminal, of which the display's bytes are read."""
    zarr.create_array("image.zarr", data=np.zeros((2, 300, 300), np.uint8) + 9, chunks=(1, 64, 64), overwrite=True)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    words = ["run", "config.yaml", "--cluster", "threads", "--workers", "1", "--set", "output.chunks=15"]
    child = subprocess.Popen(
        [sys.executable, "-c", SMALL_TASKS, *words], stdout=subprocess.PIPE, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:  # what Linux makes of a terminal that its last user has closed
        pass
    os.close(ours)
    out, _ = child.communicate(timeout=60)
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode())
    assert child.returncode == 0, seen
    for words in (
        "maps.zarr", "100/100 tasks", "1 of 1 image", r"\d\.\d megapixels/s", r"read \S+ KiB", r"written \d+\.\d KiB",
        "0 retries", "0:00 left", r"1 worker  dashboard http://\S+/status",
    ):  # fmt: skip
        assert re.search(words, seen), words
    assert b"100 of 100 tasks done" in out


def test_the_store_keeps_what_ran(small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("maps.zarr/_haloflow/run.json")
    states = []

    def listen(event: object) -> None:
        if isinstance(event, Started):
            states.append(json.loads(file.read_text()))

    job = pipeline.load("config.yaml")
    report = pipeline.run(pipeline.plan(job), "threads", 2, progress=listen)
    (begun,), ended, as_json = states, json.loads(file.read_text()), json.loads(json.dumps(report.to_dict()))
    assert (begun["state"], begun["report"]) == ("running", None)
    assert (ended["state"], ended["report"], ended["workers"]) == ("complete", as_json, 2)
    assert ended["config"]["output"]["chunks"] == [7, 7]
    assert ended["plan"]["kernels"] == {"match": "numba", "pool": "numba"}
    assert ended["versions"]["zarr"] == zarr.__version__
    assert {"python", "haloflow", "numpy", "dask", "numba", "onnxruntime"} <= ended["versions"].keys()
    assert ended["timings"].keys() == {"started", "ended", "seconds", "tasks_per_second"}
    # A run that breaks off says so.
    monkeypatch.setattr("pipeline.execute.running.output.finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipeline.run(pipeline.plan(job), "serial", overwrite=True)
    assert json.loads(file.read_text())["state"] == "interrupted"


def test_dask_s_report(small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "config.yaml", "--cluster", "threads", "--performance-report"]
    pytest.importorskip("bokeh", reason="bokeh is not installed (extra dashboard)")
    code, _, err = haloflow(*words, "dask.html")
    assert code == 0, err
    page = Path("dask.html").read_text()
    assert "haloflow" in page
    assert "Dask Performance Report" in page


def test_dask_s_report_is_refused_before_any_work(small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "config.yaml", "--performance-report"]
    monkeypatch.setattr("pipeline.execute.crew.find_spec", lambda _: None)
    assert "pip install 'haloflow[dashboard]'" in haloflow(*words, "dask.html", "--cluster", "threads")[2]
    monkeypatch.setattr("pipeline.execute.crew.find_spec", lambda _: True)
    code, _, err = haloflow(*words, "none/dask.html", "--cluster", "threads")
    assert (code, "none/dask.html: expected a file in a folder" in err) == (2, True)
    assert "serial has no Dask to report on" in haloflow(*words, "dask.html", "--cluster", "serial")[2]
    assert not Path("maps.zarr").exists()


def test_the_events_of_a_whole_run_that_is_resumed(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    pipeline.run(plan, "serial")
    seen: list[object] = []
    pipeline.run(plan, "serial", resume=True, progress=seen.append)
    assert [type(event) for event in seen] == [Started, ImageDone, Finished]
    assert not [event for event in seen if isinstance(event, Progress | TaskFailed)]
