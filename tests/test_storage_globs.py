"""From the paths and globs a user writes to images, each with a name of its own."""

import os
import re
from pathlib import Path

import pytest
import zarr

from pipeline.errors import InputError
from pipeline.storage.images import RESERVED, find, find_apart, stem
from pipeline.storage.place import Place


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        zarr.create_array(name, shape=(4, 4), dtype="u1")


def names(*patterns):
    return [str(place) for place in find(patterns)]


def test_globs_and_lists_name_each_image_once_and_in_order():
    make("b.zarr", "a.zarr", "deep/c.zarr", "odd[1].zarr")
    assert names("*.zarr") == ["a.zarr", "b.zarr", "odd[1].zarr"]
    assert names("b.zarr/", "?.zarr", "b.zarr") == ["b.zarr", "a.zarr"]
    assert names("odd[1].zarr") == ["odd[1].zarr"]  # what exists is no pattern
    assert names("**/c.zarr") == ["deep/c.zarr"]
    assert [stem(str(p)) for p in find_apart(["[ab].zarr"])] == ["a", "b"]


def test_no_glob_names_the_output_that_stands_beside_the_images():
    make("b.zarr", "a.zarr", "maps.zarr")
    output = Place.of(str(Path("maps.zarr").absolute()))
    assert list(map(str, find(["*.zarr"], output=output))) == ["a.zarr", "b.zarr"]
    assert list(map(str, find(["maps.zarr"], output=output))) == ["maps.zarr"]  # as which it is refused
    with pytest.raises(InputError, match="there is no such image"):
        find(["m*.zarr"], output=output)


@pytest.mark.parametrize(
    "path",
    ["*.tif", "none.zarr", "a" * 5000],
)
def test_what_names_no_image_is_refused(path):
    with pytest.raises(InputError, match=re.escape(path) + ": there is no such image"):
        find([path])


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_refused(path):
    with pytest.raises(InputError, match=f"an image's path is '{path}': name an image"):
        find([path])


def test_a_path_that_is_no_text_is_refused():
    path = Path(os.fsdecode(b"odd-\xff.zarr"))
    path.mkdir()
    for pattern in ("odd-*.zarr", str(path)):
        with pytest.raises(InputError, match=r"odd-\\udcff\.zarr: the path is not UTF-8; rename it"):
            find([pattern])


def test_images_that_would_share_a_name_are_refused_with_both_paths():
    make("one/a.zarr", "two/a.ome.zarr", f"{RESERVED}.zarr")
    with pytest.raises(InputError, match=r"two/a\.ome\.zarr and one/a\.zarr would both be named 'a'"):
        find_apart(["one/a.zarr", "two/a.ome.zarr"])
    with pytest.raises(InputError, match="and the run's own records would both be named '_haloflow'"):
        find_apart([f"{RESERVED}.zarr"])
    for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata", ".zarray"):
        make(f"{name}.zarr")
        with pytest.raises(InputError, match=rf"{name}.zarr and Zarr's own metadata would both be named '{name}'"):
            find_apart([f"{name}.zarr"])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/a.zarr/", "a"),
        ("a.b.ome.zarr", "a.b"),
        ("plain", "plain"),
        (".zarr", ".zarr"),
        ("x/a.ome.zarr.zip", "a"),
        ("a.zip", "a"),
        (".zip", ".zip"),
        ("x.zarr/a.zarr", "a"),
        ("s3://x/p.ome.zarr/A/1/0/", "p_A_1_0"),
        ("x.zarr/../p.zarr/./0", "p_0"),
    ],
)
def test_an_image_is_named_by_its_stem(path, name):
    assert stem(path) == name
