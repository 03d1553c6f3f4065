"""Where an output store may be made: not in an input, not around one, and in place of nothing that is not ours."""

import re
from pathlib import Path

import pytest
import zarr

from pipeline.errors import OutputError
from pipeline.storage.images import RESERVED
from pipeline.storage.output import finish
from pipeline.storage.place import Place
from pipeline.storage.target import check, check_file, clear, exists
from tests.test_storage_output import a_map, make


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tree(path="."):
    return sorted(str(p) for p in Path(path).rglob("*"))


def refused(store, words, inputs=("in.zarr",), *, overwrite=True):
    """The target is refused and nothing on the disk has changed."""
    before = tree()
    with pytest.raises(OutputError, match=re.escape(words)):
        check(store, inputs, overwrite=overwrite)
    assert tree() == before


@pytest.mark.parametrize(
    "store", ["in.zarr", "in.zarr/", "./in.zarr", "in.zarr/0/deep", "other/../in.zarr/x", "link/x"]
)
def test_a_store_inside_an_input_is_refused(store):
    zarr.create_array("in.zarr", shape=(4, 4), dtype="u1")
    Path("link").symlink_to("in.zarr")
    refused(store, f"output.store: {store} lies inside the input in.zarr; name a place outside of it")


@pytest.mark.parametrize("store", [".", "data", "data/../data"])
def test_a_store_around_an_input_is_refused(store):
    zarr.create_array("data/in.zarr", shape=(4, 4), dtype="u1")
    refused(
        store,
        f"output.store: the input data/in.zarr lies inside {store}; name another place",
        ["data/in.zarr"],
    )


def test_names_that_only_begin_alike_do_not_overlap():
    check("in.zarr2", ["in.zarr"], overwrite=False)
    check("deep/new/out.zarr", ["in.zarr"], overwrite=False)
    assert tree() == []


def test_a_store_on_a_web_server_or_with_a_file_above_it_is_refused():
    Path("file").write_text("x")
    refused("https://host/out", "output.store: nothing can be written to https://host/out; name a folder or a bucket")
    refused("file/deep/out", "file is a file, so file/deep/out cannot be made")


def test_a_link_to_itself_is_no_place_of_a_store():
    Path("circle").symlink_to("circle")
    refused("circle", "output.store: circle is a link that leads back to itself")


def test_a_name_that_no_file_can_have_is_refused():
    name = 300 * "a"
    refused(name, f"output.store: {name} cannot be made: File name too long")
    with pytest.raises(OutputError, match=r"aaa.png: cannot be made: File name too long"):
        check_file(Path(f"{name}.png"), overwrite=True)


def test_a_store_that_exists_is_replaced_only_if_asked_and_ours():
    make("out.zarr", [a_map()])
    refused(
        "out.zarr",
        "out.zarr exists already; give --overwrite to replace it, --resume to go on with it, or another name",
        overwrite=False,
    )
    check("out.zarr", ["in.zarr"], overwrite=True)
    clear(Place.of("out.zarr"))
    make("out.zarr", [a_map(layer="other")])
    assert [name for name, _ in zarr.open_group("out.zarr/x", mode="r").members()] == ["other"]


def test_a_folder_of_nothing_but_what_a_kill_left_half_written_is_no_store():
    Path("out/_haloflow/lock").mkdir(parents=True)
    Path("out/_haloflow/lock/.000001.json.0123456789abcdef.partial").write_text("{")
    Path("out/x").mkdir()
    assert not exists(Place.of("out"))
    check("out", ["in.zarr"])
    make("out", [a_map()])
    finish("out", {}, {"complete": False})
    assert not [*Path("out").rglob("*.partial")]
    refused("out", "out exists already", overwrite=False)


@pytest.mark.parametrize("foreign", ["folder", "link", "file", "array", "group", "damaged"])
def test_overwrite_never_deletes_what_is_not_ours(foreign):
    match foreign:
        case "folder":
            Path("out").mkdir()
            Path("out/thesis.tex").write_text("years of work")
        case "link":
            Path("out").mkdir()
            Path("out/years").symlink_to("in.zarr")
        case "file":
            Path("out").write_text("years of work")
        case "array":
            zarr.create_array("out", shape=(2, 2), dtype="u1", attributes={RESERVED: {}})
        case "group":
            zarr.create_group("out", attributes={"someone": "else"})
        case "damaged":
            zarr.create_group("out", attributes={RESERVED: {}})
            Path("out/zarr.json").write_text("{")
    refused("out", "out exists and was not made by haloflow, so --overwrite will not delete it")
    refused("out", "out exists already", overwrite=False)
