"""Places: what a text means, what is refused before anything is read, and that all kinds keep the same promises."""

import errno
import os
import pickle
import re
import threading
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import PlaceError
from pipeline.geometry import Interval
from pipeline.storage.images import find, open_image
from pipeline.storage.place import VARIABLE, Place
from tests.conftest import drawing_of_x

SECRET = "a-secret-of-mine"  # noqa: S105


@pytest.fixture(params=["file", "memory"])
def place(request, tmp_path):
    """An empty place that can be written."""
    return Place.of(str(tmp_path / "p") if request.param == "file" else f"memory://{uuid.uuid4()}/p")


@pytest.mark.parametrize(
    ("text", "below", "whole"),
    [
        ("a.zarr", "0/c", "a.zarr/0/c"),
        ("/", "a", "/a"),
        ("s3://bucket", "a", "s3://bucket/a"),
        ("s3://bucket/", "a", "s3://bucket/a"),
        ("gs://bucket/deep/x.zarr/", "0", "gs://bucket/deep/x.zarr/0"),
        ("https://host:8000/x.zarr", "zarr.json", "https://host:8000/x.zarr/zarr.json"),
    ],
)
def test_a_place_below_a_place_is_written_as_one_would_write_it(text, below, whole):
    assert re.sub("^//", "/", str(Place.of(text) / below)) == whole
    assert Place.of(Place.of(text)) == Place.of(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("simplecache::s3://bucket/a", "is a chain of places"),
        ("a.zarr::memory://b", "is a chain of places"),
        ("a\0b", "no path and no URL holds a NUL"),
        ("ftp://host/a.zarr", "ftp://…: is no kind of place that can be used; expected a path, or s3://, gs://,"),
        ("file:///etc", "file://…: is no kind of place"),
        ("S3://bucket/a", "S3://…: is no kind of place"),
        ("s3://", "expected s3://NAME/KEY"),
        ("s3://bucket/a/../../b", "without '.', '..' and empty parts"),
        ("s3://bucket//a", "without '.', '..' and empty parts"),
        (f"https://me:{SECRET}@host/a", "https://host…: holds a user, a query or a fragment"),
        (f"https://host/a?key={SECRET}", "https://host…: holds a user, a query or a fragment"),
        ("s3://bucket/a?versionId=7", "holds a user, a query or a fragment"),
    ],
)
def test_a_url_that_leads_elsewhere_is_refused_and_never_told_whole(text, words):
    with pytest.raises(PlaceError, match=re.escape(words)) as refused:
        Place.of(text)
    assert SECRET not in str(refused.value)


def test_options_travel_with_a_place_and_are_never_shown(monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"key": "from outside", "anon": true}')
    place = pickle.loads(pickle.dumps(Place.of("s3://bucket/a", {"key": SECRET}) / "b"))  # noqa: S301 - our own
    assert place == Place.of("s3://bucket/a", {"key": SECRET}) / "b"
    assert place != Place.of("s3://bucket/a") / "b"
    assert SECRET not in f"{place} {place!r}"
    monkeypatch.setenv(VARIABLE, SECRET)
    with pytest.raises(PlaceError, match=f"{VARIABLE}: expected a JSON object") as refused:
        Place.of("s3://bucket/a")
    assert SECRET not in str(refused.value)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(PlaceError, match="more than text, numbers, lists and mappings"):
        Place.of("s3://bucket/a", {"session": object()})


def test_what_is_written_is_read_listed_and_deleted(place):
    assert place.read("none") is None
    assert not place.exists()
    place.write("a/b", b"one")
    place.write("a/b", b"two")
    place.write("ab", b"")
    place.write("zarr.json", b"{}")
    assert place.exists()
    assert (place / "a").read("b") == b"two"
    assert place.read("ab") == b""
    assert place.read("ab/c") is None
    assert sorted(place.list()) == ["a/b", "ab", "zarr.json"]
    assert list(place.list("a")) == ["a/b"]
    assert list((place / "a").list()) == ["b"]
    assert list(place.list("none")) == []
    place.delete("a")
    place.delete("a")
    assert sorted(place.list()) == ["ab", "zarr.json"]
    place.delete("ab")
    assert sorted(place.list()) == ["zarr.json"]


def test_of_many_that_create_a_key_one_does(place):
    barrier, won = threading.Barrier(8), []

    def create(number):
        barrier.wait()
        if place.create("lock", bytes([number])):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.read("lock") == bytes(won)
    assert sorted(place.list()) == ["lock"]


def zipped(folder: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder.parent))


def test_an_image_in_a_zip_file_is_read_and_nothing_is_written_to_it(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=(9, 9), chunks=(4, 4), dtype="u1")
    array[:] = drawing_of_x()
    zipped(tmp_path / "x.zarr", tmp_path / "x.zip")
    before = (tmp_path / "x.zip").read_bytes()
    inside = Place.of(f"{tmp_path}/x.zip/x.zarr")
    source = open_image(inside)
    assert (source.name, source.extents) == ("x", (9, 9))
    np.testing.assert_array_equal(source.read((Interval(0, 9), Interval(0, 9)))[0], drawing_of_x())
    with pytest.raises(PlaceError, match="nothing can be written to zip places"):
        inside.write("a", b"")
    with pytest.raises(PlaceError, match="nothing can be written to zip places"):
        inside.create("a", b"")
    assert (tmp_path / "x.zip").read_bytes() == before


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    written, write = [], os.write

    def full(descriptor, data):
        written.append(len(data))
        if len(data) < 19:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:3])

    store = Place.of(str(tmp_path))
    for put in (store.write, store.create):
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                put("run.json", b"whole or not at all")
    assert written == [19, 16, 19, 16]
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_named_leaves_nothing(tmp_path, monkeypatch):
    place = Place.of(str(tmp_path / "p"))
    place.write("deep/a", b"old")

    def fail(*names):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        place.write("deep/a", b"new")
    assert [path.name for path in (tmp_path / "p/deep").iterdir()] == ["a"]
    assert place.read("deep/a") == b"old"


def test_a_path_in_the_users_folder_is_never_one_of_that_name_here(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    home, here = tmp_path / "scans", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    zarr.create_array("~a.zarr", shape=(2, 3), dtype="u1")
    zarr.create_array(str(home / "b.zarr"), shape=(4, 5), dtype="u1")
    found = find(["~/scans/*.zarr", "~/scans/b.zarr", "~a.zarr"])
    assert [str(place) for place in found] == [str(home / "b.zarr"), "~a.zarr"]
    Place.of("~/out.zarr").write("zarr.json", b"{}")
    assert (tmp_path / "out.zarr/zarr.json").read_bytes() == b"{}"
    assert not (here / "~").exists()
