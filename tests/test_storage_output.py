"""The output store: made as the config says, and written in whole units."""

import errno
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image

from pipeline.errors import OutputError, RunError
from pipeline.geometry import Interval
from pipeline.pixels import Encoding
from pipeline.storage.codecs import Codec
from pipeline.storage.forms import files, zarr_format
from pipeline.storage.images import RESERVED
from pipeline.storage.maps import MapArray
from pipeline.storage.metadata import Window
from pipeline.storage.output import add, create, finish, metadata, show, write
from pipeline.storage.place import Place

RECORD = {"config": {"layers": [{"type": "relu"}]}, "complete": True}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def a_map(image="x", layer="match", **changes):
    given = {
        "channels": ("falling", "rising"),
        "extents": (10, 7),
        "chunks": (4, 5),
        "encoding": Encoding(),
        "compression": Codec("lz4"),
        "scale": (2.0, 3.0),
        "translation": (0.5, -1.0),
        "units": ("micrometer", None),
    }
    return MapArray(image, layer, **{**given, **changes})


def make(store, maps):
    create(store, RECORD)
    add(store, maps)


def end(store, windows):
    show(store, windows)
    finish(store, {m.group: metadata(m, shown) for m, shown in windows.items()}, RECORD)


def test_a_place_that_cannot_be_written_is_an_output_error():
    with pytest.raises(OutputError, match=re.escape("output.store: /proc/out.zarr cannot be made: ")):
        make("/proc/out.zarr", [a_map()])


@pytest.mark.parametrize(
    ("compression", "code", "words"),
    [
        (
            "lz4",
            errno.ENOSPC,
            r"No space left on device: it takes 80 B before compression, and [\d.]+ .?i?B are free there",
        ),
        ("lz4", errno.EIO, "Input/output error"),
        (
            "none",
            errno.ENOSPC,
            r"No space left on device: it takes 80 B before compression, and [\d.]+ .?i?B are free there",
        ),
    ],
)
def test_a_unit_that_cannot_be_written_is_named(monkeypatch, compression, code, words):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    m = a_map(compression=Codec(compression))
    make("out.zarr", [m])
    monkeypatch.setattr("pipeline.storage.files.os.replace", refuse)
    where = re.escape("out.zarr/x/match/0, unit (0, 0, 0): cannot be written: ")
    with pytest.raises(RunError, match=f"^{where}{words}$"):
        write("out.zarr", m, (Interval(0, 10), Interval(0, 7)), units(m, np.ones((2, 10, 7), "f4")))


def test_an_array_far_away_is_opened_once(tmp_path, monkeypatch):
    store, m, opened, open_array = f"memory://{tmp_path.name}/out.zarr", a_map(), [], zarr.open_array

    def count(*words, **named):
        opened.append(words)
        return open_array(*words, **named)

    make(store, [m])
    monkeypatch.setattr(zarr, "open_array", count)
    (made,), _ = write(store, m, (Interval(0, 10), Interval(0, 7)), units(m, np.ones((2, 10, 7), "f4")))
    assert len(opened) == 1
    assert np.all(open_array(Place.of(f"{store}/x/match/0").store())[:] == 1)
    assert len(made.sizes) == 12
    assert min(made.sizes) > 0


@pytest.mark.parametrize(("compression", "codec"), [("lz4", "blosc"), ("zstd", "zstd"), ("none", None)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint16"])
def test_a_store_is_made_as_asked_and_empty(compression, codec, dtype):
    make("out.zarr", [a_map(compression=Codec(compression), encoding=Encoding(dtype, -2.0, 3.0))])
    array = zarr.open_array("out.zarr/x/match/0", mode="r")
    assert (array.shape, array.chunks, array.shards) == ((2, 10, 7), (1, 4, 5), None)
    assert array.dtype == dtype
    assert array.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("c", "y", "x")
    names = [c.to_dict()["name"] for c in array.compressors]
    assert names == ([codec] if codec else [])
    if codec == "blosc":
        told = array.compressors[0].to_dict()["configuration"]
        assert (told["cname"], told["shuffle"], told["typesize"]) == (
            "lz4",
            "shuffle",
            np.dtype(dtype).itemsize,
        )
    assert dict(array.attrs) == Encoding(dtype, -2.0, 3.0).attributes
    assert array.nchunks_initialized == 0


def test_every_map_is_a_valid_ome_zarr_image_before_and_after_the_end():
    maps = [a_map(), a_map("y", "pool", channels=("one",), extents=(3, 3), units=(None, None))]
    make("out.zarr", maps)
    for complete in (False, True):
        if complete:
            end("out.zarr", {maps[0]: [Window(-0.5, 1, -0.25, 0.75)] * 2, maps[1]: [Window.of(0.0, 2.0)]})
        for m in maps:
            image = Image.from_zarr(zarr.open_group(f"out.zarr/{m.group}", mode="r"))
            multiscale = image.attributes.ome.multiscales[0]
            assert [axis.name for axis in multiscale.axes] == ["c", "y", "x"]
            assert [axis.unit for axis in multiscale.axes] == [None, *m.units]
            scale, translation = multiscale.datasets[0].coordinateTransformations
            assert (scale.scale, translation.translation) == ([1, 2, 3], [0, 0.5, -1])
        root = zarr.open_group("out.zarr", mode="r")
        assert root.attrs[RESERVED] == {**RECORD, "complete": complete}
    channels = root["x/match"].attrs["ome"]["omero"]["channels"]
    assert [c["label"] for c in channels] == ["falling", "rising"]
    assert channels[0]["window"] == {"min": -0.5, "max": 1, "start": -0.25, "end": 0.75}
    assert root["y/pool"].attrs["ome"]["omero"]["channels"][0]["window"]["max"] == 2


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_metadata_are_byte_for_byte_what_zarr_writes(version):
    """What is written from a form equals what zarr makes of each map by itself."""
    names = ('with "quotes"', "ümläut", "z")
    maps = [
        a_map(name, "pool", extents=(900, 700), chunks=(100, 90), shrink="mean", version=version, fill=fill)
        for name, fill in zip(names, (0, math.nan, 0), strict=True)
    ]
    create("out.zarr", RECORD, zarr_format(maps[0]))
    add("out.zarr", maps)
    form = zarr_format(maps[0])
    for n, m in enumerate(maps):
        windows = [Window.of(-0.1 * n, 1e-7 + n), Window.of(3, 7, 4, 5)]
        group = zarr.create_group(f"by_zarr.zarr/{m.group}", zarr_format=form, attributes=m.attributes(windows))
        for number, level in enumerate(m.levels):
            group.create_array(
                str(number),
                shape=m.shape(level),
                chunks=m.one(level.chunks),
                dtype="float32",
                fill_value=m.fill,
                compressors=m.compression.made(form),
                chunk_key_encoding={"name": "default" if form == 3 else "v2", "separator": "/"},
                dimension_names=m.axes if form == 3 else None,
                attributes={} if form == 3 else {"_ARRAY_DIMENSIONS": m.axes},
            )
        for path in sorted(p for p in Path(f"by_zarr.zarr/{m.group}").rglob("*") if p.is_file()):
            ours = Path("out.zarr", *path.parts[1:])
            if path.parent.name.isdecimal():
                assert ours.read_bytes() == path.read_bytes(), path
        show("out.zarr", {m: windows})
        expected = files(metadata(m, windows))
        assert {name: Path("out.zarr", m.group, name).read_bytes() for name in expected} == expected


def test_an_array_that_would_be_another_is_refused():
    make("out.zarr", [a_map()])
    add("out.zarr", [a_map()])  # the same again
    add("out.zarr", [a_map("y")], new=True)
    assert {path.name for path in Path("out.zarr/y/match").iterdir()} == {"0", "zarr.json"}
    with pytest.raises(OutputError, match="begin anew with --overwrite"):
        add("out.zarr", [a_map(fill=2.0)])


def test_the_window_of_a_scaled_map_is_in_stored_numbers():
    m = a_map(encoding=Encoding("uint8", 0.0, 254.0))
    make("out.zarr", [m])
    end("out.zarr", {m: [Window.of(10.0, 100.0)] * 2})
    window = zarr.open_group("out.zarr/x/match", mode="r").attrs["ome"]["omero"]["channels"][1]["window"]
    assert [round(window[key], 6) for key in ("min", "max", "start", "end")] == [10, 100, 10, 100]


def units(m, values):
    """Cut the values of a region that begins at a chunk's corner into whole chunks."""
    height, width = m.chunks
    rows, columns = (-(-n // size) for n, size in zip(values.shape[1:], m.chunks, strict=True))
    made = np.full((rows, columns, len(values), height, width), m.fill, values.dtype)
    for row, column in np.ndindex(rows, columns):
        part = values[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        made[row, column, :, : part.shape[1], : part.shape[2]] = part
    return made


@pytest.mark.parametrize("fill", [0, 7.5, math.nan])
def test_a_chunk_of_nothing_but_the_fill_value_is_not_written(fill):
    m = a_map(channels=("one",), extents=(4, 15), fill=fill)
    make("out.zarr", [m])
    values = np.full((1, 4, 15), fill, np.float32)
    values[0, 3, 6] = 1
    values[0, :, 10:] = -0.0  # which is not 0
    write("out.zarr", m, (Interval(0, 4), Interval(0, 15)), units(m, values))
    array = zarr.open_array("out.zarr/x/match/0", mode="r")
    np.testing.assert_array_equal(array[:].view("u4"), values.view("u4"))
    assert array.nchunks_initialized == 2


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_blocks_are_written_where_they_belong_and_nowhere_else(dtype):
    m = a_map(encoding=Encoding(dtype))
    make("out.zarr", [m])
    values = np.arange(2 * 10 * 7).reshape(2, 10, 7).astype(dtype) + 1
    blocks = [(slice(0, 4), slice(0, 5)), (slice(8, 10), slice(5, 7)), (slice(4, 8), slice(0, 7))]
    expected = np.zeros_like(values)
    for rows, columns in blocks:
        region = (Interval(rows.start, rows.stop), Interval(columns.start, columns.stop))
        write("out.zarr", m, region, units(m, values[:, rows, columns]))
        expected[:, rows, columns] = values[:, rows, columns]
    array = zarr.open_array("out.zarr/x/match/0", mode="r")
    np.testing.assert_array_equal(array[:], expected)
    assert array.nchunks_initialized == 2 * 4  # two maps, four of six chunks


def test_special_values_come_back_from_a_float_store():
    m = a_map(channels=("one",), extents=(1, 5))
    make("out.zarr", [m])
    special = np.array([[[math.nan, math.inf, -math.inf, -0.0, 1e-42]]], np.float32)
    write("out.zarr", m, (Interval(0, 1), Interval(0, 5)), units(m, special))
    back = zarr.open_array("out.zarr/x/match/0", mode="r")[:]
    np.testing.assert_array_equal(back.view("u4"), special.view("u4"))


@pytest.mark.parametrize("name", ["0", "c", "with-dashes_and_lines"])
def test_a_layer_or_image_of_any_allowed_name_has_its_place(name):
    maps = [a_map(layer=name), a_map(image=name)]
    make("out.zarr", maps)
    for m in maps:
        write("out.zarr", m, (Interval(0, 10), Interval(0, 7)), units(m, np.ones((2, 10, 7), "f4")))
        assert zarr.open_array(f"out.zarr/{m.group}/0", mode="r")[:].all()


def test_nothing_but_groups_arrays_and_the_record_is_in_a_store():
    m = a_map()
    make("out.zarr", [m])
    write("out.zarr", m, (Interval(0, 10), Interval(0, 7)), units(m, np.ones((2, 10, 7), "f4")))
    end("out.zarr", {m: [Window.of(1.0, 1.0)] * 2})
    files = {p.name for p in Path("out.zarr").rglob("*") if p.is_file() and "c" not in p.parts}
    assert files == {"zarr.json"}
    assert sorted(p.name for p in Path("out.zarr").iterdir()) == [RESERVED, "x", "zarr.json"]
