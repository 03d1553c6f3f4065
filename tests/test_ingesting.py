"""Where an ingested image goes, and that nothing is left of one that fails."""

import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tifffile
import zarr

from pipeline.errors import InputError, OutputError, PlanError, RunError
from pipeline.ingesting.ingest import ingest
from pipeline.ingesting.layout import Layout
from pipeline.ingesting.records import Records
from pipeline.storage.images import open_image
from pipeline.storage.place import Place
from tests.ingested import holds, names, noise, refused

RGB = {"photometric": "rgb"}


def test_the_report(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(101, 103, 3), **RGB)
    calls = []
    made = ingest(
        str(tmp_path / "a.tif"),
        str(tmp_path / "deep/er/a.zarr"),
        chunks=50,
        compression="zstd",
        memory=80_000,
        progress=lambda *done: calls.append(done),
    )
    assert calls[-1] == (6, 6)  # as many chunks at once as a quarter of the memory holds
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert "3 × 101 × 103 uint8, chunks 50 × 50" in str(made)
    assert "\n" not in str(made)
    assert json.loads(json.dumps(made.to_dict()))["extents"] == [101, 103]
    assert made.bytes == sum(f.stat().st_size for f in (tmp_path / "deep").rglob("*") if f.is_file())
    assert names(tmp_path / "deep/er") == ["a.zarr"]


def test_the_blocks_do_not_show(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(311, 307, 3), tile=(64, 48), compression="zlib", **RGB)
    stores = [tmp_path / f"{memory}.zarr" for memory in (40_000, 500_000, 10**9)]
    for store in stores:
        ingest(tmp_path / "a.tif", store, chunks=32, memory=np.int64(store.stem))
    files = [{f.relative_to(s): f.read_bytes() for f in s.rglob("*/c/**/*") if f.is_file()} for s in stores]
    assert files[0] == files[1] == files[2]
    assert len(files[0]) == 300


@pytest.fixture
def picture(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(101, 103), tile=(16, 16), compression="zlib")
    return tmp_path / "a.tif"


def test_an_existing_target(tmp_path, picture):
    first = ingest(picture, tmp_path / "a.zarr")
    kept = zarr.open_array(tmp_path / "a.zarr/0")[:]
    (tmp_path / "a.zarr/note").write_text("here before")
    with pytest.raises(OutputError, match="--overwrite"):
        ingest(picture, tmp_path / "a.zarr")
    assert (tmp_path / "a.zarr/note").exists()
    (tmp_path / "bad.tif").write_bytes(picture.read_bytes()[:-400])
    with pytest.raises(InputError):
        ingest(tmp_path / "bad.tif", tmp_path / "a.zarr", overwrite=True)
    assert (tmp_path / "a.zarr/note").exists()  # the old one stays until the new one is complete
    assert ingest(picture, tmp_path / "a.zarr", overwrite=True).store == first.store
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr/0")[:], kept)
    assert names(tmp_path) == ["a.tif", "a.zarr", "bad.tif"]
    assert not (tmp_path / "a.zarr/note").exists()


def test_overwrite_follows_a_link_and_replaces_no_other_thing(tmp_path, picture):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for version in (2, 3):  # such as the maps of a run
        zarr.create_group(tmp_path / f"theirs{version}", zarr_format=version)
    for name in ("folder", "file", "theirs2", "theirs3"):
        before = names(tmp_path / name) if name != "file" else []
        with pytest.raises(OutputError, match="no image that an ingest made"):
            ingest(picture, tmp_path / name, overwrite=True)
        assert name == "file" or names(tmp_path / name) == before
    ingest(picture, tmp_path / "folder/real.zarr")
    (tmp_path / "link").symlink_to(tmp_path / "folder/real.zarr")
    ingest(picture, tmp_path / "link", overwrite=True, chunks=np.int64(7))
    assert (tmp_path / "link").is_symlink()
    assert zarr.open_array(tmp_path / "folder/real.zarr/0").chunks == (1, 7, 7)
    assert names(tmp_path / "folder") == ["precious", "real.zarr"]
    inside = tmp_path / "folder/real.zarr/a.tif"
    inside.write_bytes(picture.read_bytes())
    with pytest.raises(OutputError, match="inside"):
        ingest(inside, tmp_path / "folder/real.zarr", overwrite=True)
    assert inside.exists()


def test_impossible_targets_and_options(tmp_path, picture):
    (tmp_path / "file").write_text("mine")
    refused(tmp_path, picture, OutputError, "number of pixels", chunks=0)
    refused(tmp_path, picture, OutputError, "number of pixels", chunks=(3, 3, 3))
    refused(tmp_path, picture, OutputError, "lz4, zstd, none", compression="gzip")
    refused(tmp_path, picture, OutputError, "smaller", memory=2000)
    refused(tmp_path, picture, PlanError, "2GB", memory="much")
    refused(tmp_path, picture, PlanError, "workers 0: expected at least 1", workers=0)
    for target, match in (("file/a.zarr", "is a file"), ("x" * 300, "cannot be written")):
        with pytest.raises(OutputError, match=match):
            ingest(picture, tmp_path / target)
    assert names(tmp_path) == ["a.tif", "file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_one_is_marked_and_goes_on(tmp_path, picture, error):
    def stop(done, total):
        if done > total // 3:
            raise error

    with pytest.raises(error):
        ingest(picture, tmp_path / "deep/a.zarr", chunks=16, memory=8000, progress=stop)
    with pytest.raises(InputError, match=r"unfinished ingest.*haloflow ingest \S*/a.tif .*--resume"):
        open_image(str(tmp_path / "deep/a.zarr"))
    with pytest.raises(OutputError, match=r"unfinished ingest.*--resume.*--overwrite"):
        ingest(picture, tmp_path / "deep/a.zarr")
    calls = []
    made = ingest(
        picture,
        tmp_path / "deep/a.zarr",
        chunks=16,
        memory=10**8,  # the units stay as they were
        resume=True,
        progress=lambda *done: calls.append(done),
    )
    assert 3 <= made.resumed[0] < made.resumed[1] == 7
    assert calls[0][0] > made.resumed[0]
    assert "of 7 units were done already" in str(made)
    holds(tmp_path / "deep/a.zarr", tifffile.imread(picture)[None])
    assert names(tmp_path / "deep/a.zarr") == ["0", "zarr.json"]


def test_a_finished_one_is_not_done_again(tmp_path, picture):
    ingest(picture, tmp_path / "a.zarr", resume=True)  # there was none: it begins
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "a.zarr").rglob("*")}
    made = ingest(picture, tmp_path / "a.zarr", resume=True)
    assert made.resumed == (1, 1)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "a.zarr").rglob("*")} == before


def test_only_the_same_ingest_goes_on(tmp_path, picture):
    ingest(picture, tmp_path / "a.zarr")
    for options, match in (
        ({"chunks": 16}, "begun with chunks .101, 103.*now it is chunks .16, 16"),
        ({"compression": "zstd"}, "begun with compression lz4"),
        ({"overwrite": True}, "not both"),
    ):
        with pytest.raises(OutputError, match=match):
            ingest(picture, tmp_path / "a.zarr", resume=True, **options)
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(OutputError, match="another file or has changed"):
        ingest(picture, tmp_path / "a.zarr", resume=True)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(OutputError, match="no ingest"):
        ingest(picture, tmp_path / "other.zarr", resume=True)


KILLED = """
    import os, signal, sys
    from pipeline.ingesting import records
    from pipeline.ingesting.ingest import ingest

    real, left = records.Records.add, int(sys.argv[3])

    def add(self, done):
        global left
        real(self, done)
        print(*(one.unit for one in done), flush=True)
        left -= len(done)
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    records.Records.add = add
    ingest(sys.argv[1], sys.argv[2], chunks=64, shards=128, workers=2)
"""


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_what_is_done_before_a_kill_is_not_done_again(tmp_path, monkeypatch, kind):
    values = noise(1500, 1501).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, rowsperstrip=16, compression="zlib")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "a.tif", tmp_path / "a.zarr", "5"]
    killed = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    recorded = set(map(int, killed.stdout.split()))
    assert 5 <= len(recorded) < 12
    with pytest.raises(InputError, match="unfinished ingest"):
        open_image(str(tmp_path / "a.zarr"))
    (tmp_path / "a.zarr/0/c/0/0/0.1f.partial").write_text("as zarr leaves when killed")
    again, write = [], Layout.write

    def count(self, array, block, pixels):
        again.append(block.y.start // 128)
        write(self, array, block, pixels)

    monkeypatch.setattr(Layout, "write", count)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=64, shards=128, workers=2, resume=True)
    assert sorted(again) == sorted(set(range(12)) - recorded)
    assert made.resumed == (len(recorded), 12)
    holds(tmp_path / "a.zarr", values[None])
    assert not list(tmp_path.rglob("*.partial"))
    window = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
    assert (window["start"], window["end"]) == (0, 255)  # of floats, the values of both halves


def test_a_file_damaged_inside_leaves_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(300, 301), rowsperstrip=16, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        place = tif.pages[0].dataoffsets[11]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[place : place + 99] = bytes(99)
    (tmp_path / "a.tif").write_bytes(data)
    text = refused(tmp_path, tmp_path / "a.tif", match="page 1, strip 12 cannot be read", chunks=64)
    assert "\n" not in text


def test_a_write_that_fails_can_go_on(tmp_path, picture, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(RunError, match=r"No space left.*--resume") as told:
            ingest(picture, tmp_path / "out.zarr")
        patch.setattr(Records, "add", full)
        with pytest.raises(RunError, match=r"No space left.*--resume"):
            ingest(picture, tmp_path / "out.zarr", resume=True)
    assert told.value.exit_code == 3
    ingest(picture, tmp_path / "out.zarr", resume=True)
    holds(tmp_path / "out.zarr", tifffile.imread(picture)[None])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 10}, "'lz4': lz4 has the levels 1 to 9; found 10"),
        ({"compression": "zstd", "level": 0}, "zstd has the levels 1 to 22; found 0"),
        ({"compression": "none", "level": 3}, "level has no effect"),
    ],
)
def test_a_level_that_the_codec_lacks_is_refused_before_anything_is_replaced(tmp_path, picture, options, words):
    ingest(picture, tmp_path / "out.zarr")
    refused(tmp_path, picture, OutputError, words, overwrite=True, **options)
    holds(tmp_path / "out.zarr", tifffile.imread(picture)[None])


def test_what_a_kill_in_the_last_step_leaves_is_removed(tmp_path, picture, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Records, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(picture, tmp_path / "out.zarr")
    assert names(tmp_path / "out.zarr") == ["0", "_haloflow", "_haloflow_ingest", "zarr.json"]
    ingest(picture, tmp_path / "out.zarr", resume=True)
    assert names(tmp_path / "out.zarr") == ["0", "zarr.json"]
    holds(tmp_path / "out.zarr", tifffile.imread(picture)[None])


def test_shards_hold_whole_chunks_and_each_is_written_once(tmp_path):
    values = noise(3, 201, 203)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(48, 32), photometric="minisblack", metadata={"axes": "CYX"})
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=32, shards=96, workers=3, memory=10**6)
    holds(tmp_path / "a.zarr", values)
    assert made.shards == (96, 96)
    assert zarr.open_array(tmp_path / "a.zarr/0").shards == (1, 96, 96)
    assert len([f for f in (tmp_path / "a.zarr/0/c").rglob("*") if f.is_file()]) == 3 * 3 * 3
    small = ingest(tmp_path / "a.tif", tmp_path / "b.zarr", chunks=128, shards=1024)
    assert small.shards == (256, 256)
    holds(tmp_path / "b.zarr", values)
    refused(tmp_path, tmp_path / "a.tif", OutputError, "multiple", chunks=100, shards=150)


def test_into_a_zarr_store_in_memory(tmp_path, picture):
    ingest(picture, "memory://ingested/a.zarr")
    array = zarr.open_array(Place.of("memory://ingested/a.zarr/0").store(), mode="r")
    assert np.array_equal(array[0], tifffile.imread(picture))
    with pytest.raises(OutputError, match="--overwrite"):
        ingest(picture, "memory://ingested/a.zarr")
    with pytest.raises(OutputError, match="cannot be written to"):
        ingest(picture, "https://example.org/a.zarr")
