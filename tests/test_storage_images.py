"""From paths to sources: every form of Zarr that is an image is read, what is none is refused."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from pipeline.errors import InputError
from pipeline.geometry import Interval
from pipeline.storage import alike
from pipeline.storage.images import digest_of, open_image
from pipeline.storage.place import Place
from tests.examples import described

PIXELS = (np.arange(3 * 10 * 14).reshape(3, 10, 14) * 7 + 1).astype(np.uint16)
WINDOW = (Interval(3, 9), Interval(0, 13))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def same(source, expected):
    """The window of the source is that of (c, y, x), and its description is the array's."""
    assert source.extents == expected.shape[1:]
    assert len(source.channels) == len(expected)
    made = source.read(WINDOW)
    assert made.dtype.isnative
    assert source.dtype == made.dtype.name == expected.dtype.newbyteorder("=").name
    np.testing.assert_array_equal(made, expected[:, 3:9, :13])


STORED = {
    "v3": {"zarr_format": 3},
    "v2": {"zarr_format": 2},
    "v2 big-endian": {"zarr_format": 2, "dtype": ">u2"},
    "v2 in Fortran order": {"zarr_format": 2, "order": "F"},
    "v3 float": {"dtype": "float64"},
    "v3 half": {"dtype": "float16"},
    "v3 bool": {"dtype": "bool"},
    "v2 bool": {"dtype": "bool", "zarr_format": 2},
    "v3 gzip": {"compressors": GzipCodec()},
    "v3 zstd": {"compressors": ZstdCodec()},
    "v3 blosc": {"compressors": BloscCodec(cname="lz4", typesize=2)},
    "v3 plain": {"compressors": None},
    "v3 sharded": {"shards": (2, 8, 10)},
    "v2 nested": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
}


@pytest.mark.parametrize("name", STORED)
def test_an_array_is_read_however_it_is_stored(name):
    given = {"dtype": "uint16", **STORED[name]}
    array = zarr.create_array("a.zarr", shape=(3, 10, 14), chunks=(1, 4, 5), **given)
    array[:] = PIXELS
    source = open_image("a.zarr")
    same(source, PIXELS.astype(given["dtype"]))
    assert (source.name, source.axes, source.chunks) == ("a", ("c", "y", "x"), (4, 5))
    assert source.chunk_bytes == 20 * np.dtype(given["dtype"]).itemsize


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("axes", ["yx", "xy", "cyx", "yxc", "xcy", "tcyx", "tczyx", "yxt"])
def test_named_axes_may_stand_in_any_order(axes, version):
    plain, expected = ("cyx", PIXELS) if "c" in axes else ("yx", PIXELS[:1])
    stored = (PIXELS if "c" in axes else PIXELS[0]).transpose([plain.index(a) for a in axes if a in plain])
    for place, axis in enumerate(axes):
        if axis in "tz":
            stored = np.expand_dims(stored, place)
    names = {"dimension_names": tuple(axes)} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": list(axes)}}
    chunks = tuple({"y": 4, "x": 5}.get(a, 1) for a in axes)
    array = zarr.create_array("a.zarr", shape=stored.shape, chunks=chunks, dtype="u2", zarr_format=version, **names)
    array[:] = stored
    source = open_image("a.zarr")
    same(source, expected)
    assert (source.chunks, source.axes) == ((4, 5), tuple(axes))


@pytest.mark.parametrize(("shape", "channels"), [((10, 14), 1), ((3, 10, 14), 3)])
def test_unnamed_axes_are_y_x_or_c_y_x(shape, channels):
    array = zarr.create_array("a.zarr", shape=shape, chunks=shape, dtype="u2", dimension_names=None)
    array[:] = PIXELS[:channels].reshape(shape)
    same(open_image("a.zarr"), PIXELS[:channels])


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_are_the_fill_value(version):
    array = zarr.create_array("a.zarr", shape=(10, 14), chunks=(4, 5), dtype="u2", fill_value=77, zarr_format=version)
    array[4:8, 5:10] = 3
    expected = np.full((10, 14), 77, "u2")
    expected[4:8, 5:10] = 3
    same(open_image("a.zarr"), expected[None])


def ome(version="0.5", levels=2, **changes):
    """An OME-Zarr image with pixel sizes and places that differ on every axis and level."""
    attributes = described("red", "green", "blue")["ome"]
    multiscale = attributes["multiscales"][0]
    first = multiscale["datasets"][0]
    for level in range(1, levels):
        other = copy.deepcopy(first)
        other["path"] = f"deeper/{level}"
        scale = other["coordinateTransformations"][0]["scale"]
        other["coordinateTransformations"][0]["scale"] = [scale[0], *(s * 2**level for s in scale[1:])]
        multiscale["datasets"].append(other)
    multiscale.update(changes)
    if version == "0.4":
        multiscale["version"] = "0.4"
        attributes.pop("version")
    group = zarr.create_group(
        "image.ome.zarr",
        zarr_format=3 if version == "0.5" else 2,
        attributes={"ome": attributes} if version == "0.5" else attributes,
        overwrite=True,
    )
    for level in range(levels):
        path = multiscale["datasets"][level]["path"] if isinstance(multiscale["datasets"], list) else "0"
        values = PIXELS[:, :: 2**level, :: 2**level]
        group.create_array(path, shape=values.shape, chunks=(1, 4, 5), dtype="u2")[:] = values
    return "image.ome.zarr"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_image_is_read_at_each_level(version):
    source = open_image(ome(version))
    same(source, PIXELS)
    assert (source.name, source.channels) == ("image", ("red", "green", "blue"))
    assert (source.scale, source.translation) == ((2, 3), (10, 20))
    assert source.units == ("micrometer", None)
    half = open_image("image.ome.zarr", 1)
    assert str(half.array) == "image.ome.zarr/deeper/1"
    assert (half.extents, half.scale, half.translation) == ((5, 7), (4, 6), (10, 20))
    np.testing.assert_array_equal(half.read((Interval(1, 4), Interval(2, 6))), PIXELS[:, 2:8:2, 4:12:2])


def test_transformations_of_the_whole_image_come_after_those_of_the_level():
    steps = [{"type": "scale", "scale": [1, 10, 100]}, {"type": "translation", "translation": [0, 5, 7]}]
    source = open_image(ome(coordinateTransformations=steps))
    assert (source.scale, source.translation) == ((20, 300), (105, 2007))


def test_names_that_cannot_be_printed_are_made_plain(haloflow):
    """A terminal would obey them, an error have several lines, and a TIFF's description be no XML."""
    path = Path(ome())
    told = json.loads((path / "zarr.json").read_text())
    image = told["attributes"]["ome"]
    image["omero"]["channels"][0]["label"] = "a\x1b[31mb\n5\xa0µ\0"
    image["multiscales"][0]["axes"][1]["unit"] = "\x9bmeter"
    (path / "zarr.json").write_text(json.dumps(told))
    source = open_image(str(path))
    assert source.channels == ("a�[31mb�5\xa0µ�", "green", "blue")
    assert source.units == ("�meter", None)
    haloflow("export", str(path), "image.tif")
    haloflow("ingest", "image.tif", "again.zarr")
    assert open_image("again.zarr").channels == source.channels


@pytest.mark.parametrize(
    ("level", "levels", "words"),
    [
        (2, 2, "level: there is no level 2; the image has levels 0 to 1"),
        (1, 1, "level: there is no level 1; the image has level 0 only"),
    ],
)
def test_a_level_that_is_not_there_is_refused(level, levels, words):
    with pytest.raises(InputError, match=re.escape(f"image.ome.zarr: {words}")):
        open_image(ome(levels=levels), level)


def test_a_plain_array_has_no_levels():
    zarr.create_array("a.zarr", shape=(4, 4), dtype="u1")
    with pytest.raises(InputError, match=r"a.zarr: level is 1, but this is a plain array: it has no levels"):
        open_image("a.zarr", 1)


def test_a_folder_a_file_and_nothing_are_refused_with_what_to_do():
    Path("folder").mkdir()
    Path("photo.png").write_bytes(b"\x89PNG")
    for path, words in (
        ("none.zarr", "none.zarr: there is no such image"),
        ("folder", "folder: is not a Zarr image"),
        (
            "photo.png",
            "photo.png: is not a Zarr image; turn it into one with 'haloflow ingest photo.png NAME.zarr'",
        ),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            open_image(path)


@pytest.mark.parametrize("inside", [{}, {"child/zarr.json": "{"}, {"notes/README": "words"}, {"a.txt": ""}])
def test_a_group_without_metadata_is_refused_whatever_lies_in_it(inside):
    zarr.create_group("g.zarr").create_group("sub")
    for name, text in inside.items():
        Path("g.zarr", name).parent.mkdir(exist_ok=True)
        Path("g.zarr", name).write_text(text)
    with pytest.raises(InputError, match=r"g\.zarr: is a Zarr group without OME-Zarr metadata, not an image"):
        open_image("g.zarr")


def test_an_image_stored_as_y_x_c_is_told_what_to_do():
    zarr.create_array("a.zarr", shape=(40, 50, 3), dtype="u1")
    with pytest.raises(
        InputError, match=re.escape("is 40 × 50 × 3, which looks like (y, x, c); store it as (c, y, x)")
    ):
        open_image("a.zarr")


def test_metadata_that_could_not_be_read_once_count_as_what_they_are(monkeypatch):
    zarr.create_array("a.zarr", data=np.ones((4, 5), np.uint8))
    place, opener = Place.of("a.zarr"), alike.Opener(0)
    with monkeypatch.context() as patched:
        patched.setattr(alike, "documents", fail)
        first = opener.open(place)
    assert first.digest == opener.open(place).digest == digest_of(place, first.array)


def fail(place):
    raise OSError(f"{place}: the network is away for a moment")
