"""Labels of images: which image a row is of, and how a table can be wrong."""

import re
from pathlib import Path

import pytest

from pipeline import labels
from pipeline.errors import InputError

IMAGES = ["scans/a/x.zarr", "scans/a/y.ome.zarr", "s3://lab/b/z.zarr", "scans/b/w.zarr"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scans/a/x.zarr").mkdir(parents=True)
    (tmp_path / "link").symlink_to("scans/a")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*rows: str, head: str = "image,label", images: list[str] = IMAGES) -> dict[str, str]:
    Path("labels.csv").write_text("\n".join([head, *rows]) + "\n")
    return labels.read(Path("labels.csv"), images)


REST = ["y,u", "z,v", "w,v"]


@pytest.mark.parametrize(
    "image",
    [
        "x",
        "x.zarr",
        "a/x.zarr",
        "a/x",
        "scans/a/x.zarr",
        "./scans/b/../a/x.zarr",
        "link/x.zarr",
        "{folder}/scans/a/x.zarr",
    ],
)
def test_a_row_is_of_the_image_whose_path_ends_so(folder: Path, image: str) -> None:
    assert read(f"{image.format(folder=folder)},u", *REST) == {"x": "u", "y": "u", "z": "v", "w": "v"}


def test_a_row_may_be_of_a_url() -> None:
    for image in ("z", "b/z.zarr", "lab/b/z.zarr", "s3://lab/b/z.zarr"):
        assert read("x,u", "y,u", f"{image},v", "w,v")["z"] == "v"


@pytest.mark.parametrize("image", ["b/x.zarr", "scans/b/x.zarr", "/scans/a/x.zarr", "s3://lab/a/x.zarr"])
def test_an_image_of_the_same_name_in_another_folder_is_another(image: str) -> None:
    words = (
        f"labels.csv:3: input.images has no image '{image}': that of this name is scans/a/x.zarr; give the end of its "
        "path, or its name alone"
    )
    with pytest.raises(InputError, match=re.escape(words)):
        read("a/x.zarr,u", f"{image},v", *REST)
    with pytest.raises(InputError, match=re.escape(words.replace(":3:", ":2:"))):
        read(f"{image},v", *REST)


def test_an_image_has_one_label_however_it_is_called() -> None:
    assert read("x,u", "a/x.zarr,u", *REST)["x"] == "u"
    with pytest.raises(InputError, match=r"labels.csv:3: 'a/x.zarr' is v, and in line 2 u"):
        read("x,u", "a/x.zarr,v", *REST)


def test_blanks_around_names_and_labels_do_not_count() -> None:
    assert read(" x , u ", *REST, head=" image, label ") == read("x,u", *REST)
    with pytest.raises(InputError, match=r"labels.csv:2: has no image"):
        read("  ,u", *REST)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("image,label,label", "labels.csv: has 2 columns label; leave one of them"),
        ("image, label,image ,label,label", "labels.csv: has 2 columns image and 3 columns label; leave one of them"),
    ],
)
def test_a_column_that_is_there_twice_is_refused(head: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        read("x,u,v,u,u", *REST, head=head)
