"""Hostile and damaged stores: only our own errors come out, and nothing outside the image is touched."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import InputError
from pipeline.geometry import Interval
from pipeline.storage.codecs import Codec
from pipeline.storage.images import open_image
from tests.examples import described


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def array(path):
    zarr.create_array(path, shape=(4, 4), chunks=(2, 2), dtype="u1")


def image(version="0.5"):
    """Make a valid OME-Zarr image with one level; returns the file of its metadata."""
    attributes = described("red")
    if version == "0.4":
        attributes = {k: v for k, v in attributes["ome"].items() if k != "version"}
        attributes["multiscales"][0]["version"] = "0.4"
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group("image.ome.zarr", zarr_format=zarr_format, attributes=attributes)
    group.create_array("0", shape=(1, 4, 4), chunks=(1, 2, 2), dtype="u1")
    return Path("image.ome.zarr", "zarr.json" if version == "0.5" else ".zattrs")


def with_dataset_path(path):
    file = image()
    told = json.loads(file.read_text())
    told["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = path
    file.write_text(json.dumps(told))


def v2(**changes):
    told = {
        "zarr_format": 2,
        "shape": [4, 4],
        "chunks": [4, 4],
        "dtype": "|u1",
        "fill_value": 0,
        "order": "C",
    }
    told |= {"filters": None, "compressor": None, **changes}
    attributes = told.pop("attributes", {})
    Path("h.zarr").mkdir()
    Path("h.zarr/.zarray").write_text(json.dumps(told))
    Path("h.zarr/.zattrs").write_text(json.dumps(attributes))


def v3(**changes):
    array("h.zarr")
    path = Path("h.zarr/zarr.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def regular(*shape):
    return {"name": "regular", "configuration": {"chunk_shape": shape}}


PICKLE = {"id": "pickle", "protocol": 5}
CHANGES = [
    *((v2, "shape", shape) for shape in ([2**63, 4], [10**30, 4], [0, 4], [-1, 4], [1.5, 4], "ab", [], [4])),
    *((v2, "chunks", chunks) for chunks in ([0, 4], [-1, 4], [4], None, [4, 4, 4])),
    *((v2, "dtype", kind) for kind in ("|O", "<c8", "|S3", "<M8[s]", "<f16", [["a", "<u1"]], 5, "|V8", "<U2")),
    (v2, "filters", [PICKLE]),
    (v2, "compressor", PICKLE),
    (v2, "compressor", {"id": "nope"}),
    (v2, "zarr_format", 7),
    (v2, "fill_value", "x"),
    (v2, "attributes", [1]),
    (v2, "attributes", "words"),
    *((v3, "shape", shape) for shape in ([2**63, 4], [0, 0], [-4, 4], [4], "44", None)),
    *((v3, "chunk_grid", grid) for grid in (regular(0, 0), regular(-1, 2), regular(4), {"name": "odd"}, None)),
    *((v3, "data_type", kind) for kind in ("complex64", "string", "r16", "float128", 5, None)),
    *((v3, "codecs", codecs) for codecs in ([], [{"name": "evil"}], [{"name": "numcodecs.pickle"}], 5)),
    (v3, "dimension_names", ["y"]),
    (v3, "dimension_names", 5),
    (v3, "attributes", 5),
    (v3, "node_type", "magic"),
    (v3, "storage_transformers", [{"name": "z"}]),
]


@pytest.mark.parametrize(("build", "key", "value"), CHANGES, ids=lambda part: getattr(part, "__name__", str(part)))
def test_hostile_metadata_of_an_array_is_an_input_error(build, key, value):
    build(**{key: value})
    with pytest.raises(InputError, match=r"h\.zarr"):
        open_image("h.zarr")


@pytest.mark.parametrize("kind", ["pickle", "vlen-utf8", "json2"])
def test_arrays_of_objects_are_refused(kind):
    v2(dtype="|O", filters=[{"id": kind}])
    with pytest.raises(InputError, match=r"h\.zarr"):
        open_image("h.zarr")


@pytest.mark.parametrize("shape", [[4], [1, 1, 4, 4]])
def test_arrays_without_two_or_three_axes_are_refused(shape):
    v2(shape=shape, chunks=shape)
    with pytest.raises(InputError, match=r"h\.zarr: has (4 axes and no names of them|the axes x); expected"):
        open_image("h.zarr")


@pytest.mark.parametrize("names", [5, True, {"y": 0}, ["y"], [None, None], [["y"], 3]])
@pytest.mark.parametrize("build", [v2, v3])
def test_strange_names_of_axes_in_the_attributes_count_for_nothing(build, names):
    build(attributes={"_ARRAY_DIMENSIONS": names})
    assert open_image("h.zarr").axes == ("y", "x")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"zarr_format": 3}', "\ufffe"])
@pytest.mark.parametrize("name", [".zarray", ".zgroup", "zarr.json"])
def test_damaged_json_is_an_input_error(name, text):
    Path("h.zarr").mkdir()
    Path("h.zarr", name).write_text(text)
    with pytest.raises(InputError, match=r"h\.zarr"):
        open_image("h.zarr")


ODD = [None, 5, -1, 2.5, "x", [], {}, [None], [{}], True, "", [[]], ["a"], 1e300]
FIRST = ("multiscales", 0)
STEPS = (*FIRST, "datasets", 0, "coordinateTransformations")
PLACES = [
    (),
    ("multiscales",),
    FIRST,
    *((*FIRST, "axes", *rest) for rest in ((), (0,), (0, "name"), (1, "name"), (1, "unit"), (1, "type"))),
    *((*FIRST, "datasets", *rest) for rest in ((), (0,), (0, "path"))),
    *((*STEPS, *rest) for rest in ((), (0,), (0, "type"), (0, "scale"), (1, "translation"))),
    (*FIRST, "coordinateTransformations"),
    ("version",),
    *(("omero", *rest) for rest in ((), ("channels",), ("channels", 0), ("channels", 0, "label"))),
]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_odd_ome_metadata_is_read_or_an_input_error(place, version):
    file = image(version)
    told = {"": json.loads(file.read_text())}
    path = ("", *(("attributes", "ome") if version == "0.5" else ()), *place)
    escaped = []
    for value in ODD:
        changed = copy.deepcopy(told)
        holder = changed
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = value
        file.write_text(json.dumps(changed[""]))
        try:
            assert open_image("image.ome.zarr").extents == (4, 4)
        except InputError as error:
            assert "image.ome.zarr" in str(error)  # noqa: PT017 - either outcome is right
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            escaped.append(f"{value!r}: {error!r}")
    assert escaped == []


@pytest.mark.parametrize("axis", ["c", "y", "x"])
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        *(("scale", number) for number in (0.0, float("nan"), float("inf"), -2.0)),
        *(("translation", number) for number in (float("nan"), float("-inf"))),
        ("both", 1e300),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_pixels_of_no_size_or_place_are_refused(version, kind, number, axis):
    file = image(version)
    told = json.loads(file.read_text())
    multiscale = (told["attributes"]["ome"] if version == "0.5" else told)["multiscales"][0]
    steps = multiscale["datasets"][0]["coordinateTransformations"]
    if kind == "both":  # each is finite, and their product is not
        multiscale["coordinateTransformations"] = copy.deepcopy(steps)
        multiscale["coordinateTransformations"][0]["scale"]["cyx".index(axis)] = number
    place = 1 if kind == "translation" else 0
    steps[place][steps[place]["type"]]["cyx".index(axis)] = number
    file.write_text(json.dumps(told))
    if axis == "c" or number == -2.0:  # an axis may run the other way
        assert open_image("image.ome.zarr").extents == (4, 4)
        return
    words = rf"image\.ome\.zarr: .*coordinateTransformations of 0: along {axis} a pixel has the size"
    with pytest.raises(InputError, match=words):
        open_image("image.ome.zarr")


@pytest.mark.parametrize(
    "path", ["../secret.zarr", "/secret.zarr", "a/../../secret.zarr", "0/../../secret.zarr", "0\0", "0\n"]
)
def test_a_dataset_path_does_not_lead_outside(path):
    array("secret.zarr")
    with_dataset_path(path)
    with pytest.raises(InputError, match="its metadata points outside the image"):
        open_image("image.ome.zarr")


@pytest.mark.parametrize(
    "path", ["http://127.0.0.1:1/x", "x::http://127.0.0.1:1/x", "::memory://x", "memory://x", "0::file"]
)
def test_a_dataset_path_is_never_taken_for_a_url(monkeypatch, path):
    asked = []
    monkeypatch.setattr("zarr.storage.FsspecStore.from_url", lambda *url, **_: asked.append(url))
    with_dataset_path(path)
    with pytest.raises(InputError, match=r"image\.ome\.zarr"):
        open_image("image.ome.zarr")
    assert asked == []


@pytest.mark.parametrize("path", ["0", "deeper/0"])
def test_a_link_out_of_an_image_is_refused(path):
    zarr.create_group("secret").create_array("0", shape=(1, 4, 4), dtype="u1")
    with_dataset_path(path)
    link = Path("image.ome.zarr", path.partition("/")[0])
    if link.exists():
        link.rename("moved")
    link.symlink_to(Path("secret", "0" if path == "0" else "").resolve())
    with pytest.raises(InputError, match=r"image\.ome\.zarr"):
        open_image("image.ome.zarr")


def test_an_image_that_is_itself_behind_a_link_is_read():
    image()
    Path("link.zarr").symlink_to("image.ome.zarr")
    assert open_image("link.zarr").extents == (4, 4)


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_cut_anywhere_is_named_and_not_read_beyond(tmp_path, codec, version):
    values = np.random.default_rng(1).integers(0, 2**16, (40, 50)).astype("uint16")
    array = zarr.create_array(
        tmp_path / "a.zarr", data=values, chunks=(40, 50), compressors=Codec(codec).made(version), zarr_format=version
    )
    chunk = tmp_path / "a.zarr" / array.metadata.encode_chunk_key((0, 0))
    data = chunk.read_bytes()
    for kept in (0, 7, 15, 16, 50, len(data) // 2, len(data) - 1):
        chunk.write_bytes(data[:kept])
        with pytest.raises(InputError, match=r"a\.zarr: y 0:40, x 0:50 cannot be read|a\.zarr: .*cannot be read"):
            open_image(str(tmp_path / "a.zarr")).read((Interval(0, 40), Interval(0, 50)))
