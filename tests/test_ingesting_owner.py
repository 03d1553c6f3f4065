"""An ingest has one owner, and what it has not finished is no image, not even its array."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import tifffile

from pipeline.errors import InputError, OutputError, RunError
from pipeline.ingesting.ingest import ingest
from pipeline.ingesting.layout import Layout
from pipeline.storage import lock
from pipeline.storage.images import open_image
from pipeline.storage.place import Place
from tests.ingested import holds, names, noise

WAITS = """
    import sys, time
    from pathlib import Path
    from pipeline.ingesting.ingest import ingest

    def wait(done, total):
        Path(sys.argv[3]).touch()
        while Path(sys.argv[3]).exists():
            time.sleep(0.02)

    ingest(sys.argv[1], sys.argv[2], chunks=32, memory=20_000, workers=1, progress=wait)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has begun to ingest a.tif, and waits as long as there is a file ``wait``."""
    tifffile.imwrite(tmp_path / "a.tif", noise(200, 60), rowsperstrip=16)
    words = [sys.executable, "-c", textwrap.dedent(WAITS), *(str(tmp_path / n) for n in ("a.tif", "a.zarr", "wait"))]
    with subprocess.Popen(words) as process:
        try:
            until = time.monotonic() + 120
            while not (tmp_path / "wait").exists():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def again(tmp_path, **options):
    return ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=32, **options)


def test_an_ingest_that_another_process_is_at_is_left_alone(tmp_path, other):
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError, match=rf"^{tmp_path}/a\.zarr is being written by run .*process {other.pid} on"):
            again(tmp_path, **options)
    for path in ("a.zarr", "a.zarr/0"):
        with pytest.raises(
            InputError, match=rf"{tmp_path}/a\.zarr: is an unfinished ingest; .*{tmp_path}/a.zarr --res"
        ):
            open_image(str(tmp_path / path))
    (tmp_path / "wait").unlink()
    while other.poll() is None and not (tmp_path / "wait").unlink(missing_ok=True):
        time.sleep(0.02)
    assert other.returncode == 0
    holds(tmp_path / "a.zarr", tifffile.imread(tmp_path / "a.tif")[None])
    open_image(str(tmp_path / "a.zarr/0"))
    assert names(tmp_path / "a.zarr") == ["0", "zarr.json"]


def test_one_whose_process_was_killed_goes_on(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    made = again(tmp_path, resume=True, memory=20_000)
    assert 0 < made.resumed[0] < made.resumed[1]
    holds(tmp_path / "a.zarr", tifffile.imread(tmp_path / "a.tif")[None])
    assert names(tmp_path / "a.zarr") == ["0", "zarr.json"]


def test_one_that_was_taken_over_ends(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", noise(200, 60), rowsperstrip=16)

    def take_over(done, total):
        if done == total:
            monkeypatch.setattr(lock.Held, "alive", lambda _: False)  # on another machine, it was long silent
            lock.acquire(Place.of(str(tmp_path / "a.zarr")), "")

    with pytest.raises(RunError, match="was taken over by another run"):
        again(tmp_path, memory=20_000, progress=take_over)
    with pytest.raises(InputError, match="unfinished ingest"):
        open_image(str(tmp_path / "a.zarr"))
    again(tmp_path, memory=20_000, resume=True)
    holds(tmp_path / "a.zarr", tifffile.imread(tmp_path / "a.tif")[None])


def test_a_disk_that_is_full_from_the_beginning_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", noise(20, 30))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Layout, "create", full)
        with pytest.raises(OutputError, match=r"a\.zarr cannot be written: .*No space left"):
            ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    (tmp_path / "a.zarr").mkdir()  # which is what is left where not even the first file can be written
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    holds(tmp_path / "a.zarr", tifffile.imread(tmp_path / "a.tif")[None])
