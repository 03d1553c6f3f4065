"""Where an ingested image goes, in how much memory, and that nothing is left of one that fails."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from pipeline.errors import InputError, OutputError, PlanError
from pipeline.storage.ingest import ingest
from tests.ingested import names, noise, refused

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
    assert calls[-1] == (27, 27)
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
        ingest(tmp_path / "a.tif", store, chunks=32, memory=int(store.stem))
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
    for name in ("folder", "file"):
        with pytest.raises(OutputError, match="not a Zarr store"):
            ingest(picture, tmp_path / name, overwrite=True)
    ingest(picture, tmp_path / "folder/real.zarr")
    (tmp_path / "link").symlink_to(tmp_path / "folder/real.zarr")
    ingest(picture, tmp_path / "link", overwrite=True, chunks=7)
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
    for target, match in (("file/a.zarr", "is a file"), ("x" * 300, "cannot be written")):
        with pytest.raises(OutputError, match=match):
            ingest(picture, tmp_path / target)
    with pytest.raises(OutputError, match="URL"):
        ingest(picture, "s3://bucket/a.zarr")
    assert names(tmp_path) == ["a.tif", "file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_left_of_an_interrupted_one(tmp_path, picture, error, overwrite):
    def stop(done, total):
        hidden = [name for name in names(tmp_path / "deep") if name.startswith(".a.zarr.")]
        assert len(hidden) == 1
        assert str(os.getpid()) in hidden[0]
        if done > total // 3:
            raise error

    if overwrite:
        ingest(picture, tmp_path / "deep/a.zarr")
    with pytest.raises(error):
        ingest(picture, tmp_path / "deep/a.zarr", chunks=16, memory=8000, progress=stop, overwrite=overwrite)
    if overwrite:
        assert names(tmp_path / "deep") == ["a.zarr"]
        assert zarr.open_array(tmp_path / "deep/a.zarr/0").chunks == (1, 101, 103)
    else:
        assert names(tmp_path) == ["a.tif"]


def test_a_write_that_fails(tmp_path, picture, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    refused(tmp_path, picture, OutputError, "No space left")


def test_a_store_that_appeared_meanwhile_is_not_replaced(tmp_path, picture):
    def appear(done, total):
        (tmp_path / "out.zarr").mkdir(exist_ok=True)
        (tmp_path / "out.zarr/zarr.json").write_text("another's")

    with pytest.raises(OutputError):
        ingest(picture, tmp_path / "out.zarr", progress=appear)
    assert (tmp_path / "out.zarr/zarr.json").read_text() == "another's"
    assert names(tmp_path) == ["a.tif", "out.zarr"]


SCRIPT = Path(__file__).parent.parent / "scripts/make_tiff.py"
LAYOUTS = [("tiled", "zlib"), ("striped", "zlib"), ("striped", "none"), ("single", "none")]
SIDE = 8000
MEASURE = """
    import re, sys
    from pathlib import Path
    import tifffile
    from pipeline.storage.ingest import ingest

    def peak():  # not ru_maxrss, into which Linux counts what the parent held when it started this process
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    small, large, out, how = sys.argv[1:]
    ingest(small, out + "/small.zarr", overwrite=True)
    before = peak()
    if how == "whole":
        tifffile.imread(large).sum()
    else:
        ingest(large, out + "/large.zarr", chunks=512)
    print(peak() - before)
"""


def make(path, side, layout, compression):
    command = [sys.executable, SCRIPT, path, "--side", side, "--layout", layout, "--compression", compression]
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=300)


def growth(folder, how):
    """Return by how many bytes the peak of a fresh process grows from a small image to a large one."""
    command = [sys.executable, "-c", textwrap.dedent(MEASURE)]
    command += [str(folder / "small.tif"), str(folder / "large.tif"), str(folder), how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it")
@pytest.mark.parametrize(("layout", "compression"), LAYOUTS)
def test_a_tiff_is_streamed(tmp_path, layout, compression):
    make(tmp_path / "small.tif", 700, layout, compression)
    make(tmp_path / "large.tif", SIDE, layout, compression)
    image = SIDE * SIDE
    assert growth(tmp_path, "whole") > 0.9 * image  # so the bound below would show a file loaded whole
    assert growth(tmp_path, "streamed") < 0.6 * image
    original = tifffile.imread(tmp_path / "large.tif")
    assert original.std() > 30
    assert np.array_equal(zarr.open_array(tmp_path / "large.zarr/0", mode="r")[0], original)


def test_made_tiffs_have_the_same_pixels_in_every_layout(tmp_path):
    images = []
    for layout, compression in LAYOUTS:
        make(tmp_path / "a.tif", 701, layout, compression)
        images.append(tifffile.imread(tmp_path / "a.tif"))
    assert all(np.array_equal(images[0], image) for image in images)
