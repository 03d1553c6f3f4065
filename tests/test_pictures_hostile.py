"""Damaged, cut and hostile image files become a reason, and nothing else."""

import zlib
from contextlib import suppress

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from pipeline.errors import InputError, OutputError
from pipeline.ingesting.ingest import ingest
from pipeline.pictures import other
from tests.ingested import RNG, holds, noise, png, refused

PICTURES = {
    "1": noise(101, 103) > 127,
    "L": noise(101, 103),
    "I;16": noise(101, 103, dtype="uint16"),
    "RGB": noise(101, 103, 3),
    "RGBA": noise(101, 103, 4),
}


RGB = {"photometric": "rgb"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """What no format here knows is not handed to bioio, whether it is installed or not."""
    monkeypatch.setattr(other, "find_spec", lambda _: None)


@pytest.mark.parametrize("mode", ["CMYK", "F"])
def test_other_modes_are_refused_by_name(tmp_path, mode):
    name = {"CMYK": "a.jpg", "F": "a.gif"}[mode]
    PIL.Image.new("L" if mode == "F" else mode, (7, 5)).save(tmp_path / name)
    refused(tmp_path, tmp_path / name, match="no image of a known format" if mode == "F" else f"mode {mode}")


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png(100_000, 100_000, 8, 0, b"\0" * 99))
    text = refused(tmp_path, tmp_path / "a.png", match="100000 × 100000")
    assert "27.9 GiB" in text
    assert "953.7 MiB" in text
    tifffile.imwrite(
        tmp_path / "a.tif",
        iter([b"tiny"]),
        shape=(60_000, 60_000),
        dtype="uint8",
        rowsperstrip=60_000,
        compression="zlib",
    )
    text = refused(tmp_path, tmp_path / "a.tif", match="strips or tiles of 3.4 GiB")
    assert "953.7 MiB" in text
    for codec in ("zlib", "jpeg"):  # the tile says 64 × 64, its stream has far more
        stream = zlib.compress(bytes(10**8))
        if codec == "jpeg":
            PIL.Image.new("L", (9000, 9000)).save(tmp_path / "b.jpg")
            stream = (tmp_path / "b.jpg").read_bytes()
        tifffile.imwrite(
            tmp_path / "b.tif",
            iter([stream]),
            shape=(64, 64),
            dtype="uint8",
            tile=(64, 64),
            compression=codec,
        )
        refused(tmp_path, tmp_path / "b.tif")


def test_other_axes_are_refused_with_their_sizes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(2, 3, 7, 5), metadata={"axes": "RCYX"}, photometric="minisblack")
    refused(tmp_path, tmp_path / "a.tif", match="R 2, C 3, Y 7, X 5")
    tifffile.imwrite(tmp_path / "b.tif", noise(4, 7, 5), metadata=None, photometric="minisblack")
    refused(tmp_path, tmp_path / "b.tif", match="I 4, Y 7, X 5.*--pages")
    tifffile.imwrite(tmp_path / "c.tif", noise(90))
    refused(tmp_path, tmp_path / "c.tif", match="its axes are X 90; expected Y, X")


def test_other_pixels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(7, 5).astype("complex64"))
    refused(tmp_path, tmp_path / "a.tif", match="complex64")
    colormap = noise(3, 256, dtype="uint16")
    tifffile.imwrite(tmp_path / "b.tif", noise(7, 5), photometric="palette", colormap=colormap)
    refused(tmp_path, tmp_path / "b.tif", match="palette")


def test_what_is_no_image_file(tmp_path):
    (tmp_path / "text.tif").write_text("not an image at all")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    zarr.create_array(tmp_path / "a.zarr", shape=(3,), dtype="u1")
    refused(tmp_path, tmp_path / "text.tif", match="no image of a known format")
    refused(tmp_path, tmp_path / "empty.png", match="empty")
    refused(tmp_path, tmp_path / "none.png", match="no such file")
    refused(tmp_path, tmp_path / "folder", match="directory")
    refused(tmp_path, tmp_path / "a.zarr", match="needs no ingest")
    refused(tmp_path, "http://127.0.0.1/a.tif", match="URL")
    refused(tmp_path, "/dev/zero", match="regular file")


PAGES = {"metadata": {"axes": "CYX"}, "photometric": "minisblack"}
CUTS = {
    "single.tif": ("L", {}),
    "strips.tif": ("RGB", {"rowsperstrip": 9, "compression": "lzw", "photometric": "rgb"}),
    "tiles.tif": ("I;16", {"tile": (16, 16), "compression": "zlib"}),
    "big.tif": ("L", {"bigtiff": True, "tile": (32, 32)}),
    "pages.tif": ("CYX", PAGES),
    "pages_zlib.tif": ("CYX", {**PAGES, "compression": "zlib"}),
    "ome.tif": ("CYX", {**PAGES, "ome": True}),
    "ome_lzw.tif": ("CYX", {**PAGES, "ome": True, "compression": "lzw"}),
    "imagej.tif": ("CYX", {"imagej": True, "metadata": {"axes": "CYX"}}),
    "pillow.tif": ("L", None),
    "a.png": ("RGB", None),
    "a.jpg": ("L", None),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path, name):
    kind, options = CUTS[name]
    values = noise(3, 31, 37) if kind == "CYX" else PICTURES[kind]
    if options is None:
        extra = {"compression": "tiff_lzw"} if name == "pillow.tif" else {}
        PIL.Image.fromarray(values).save(tmp_path / name, **extra)
    else:
        tifffile.imwrite(tmp_path / name, values, **options)
    ingest(tmp_path / name, tmp_path / "whole.zarr")
    expected = zarr.open_array(tmp_path / "whole.zarr/0")[:]
    data = (tmp_path / name).read_bytes()
    cut = tmp_path / f"cut.{name}"
    refusals = []
    for kept in sorted({*range(0, len(data), len(data) // 40), *range(len(data) - 12, len(data))}):
        cut.write_bytes(data[:kept])
        try:
            ingest(cut, tmp_path / "cut.zarr", overwrite=True)
        except InputError as error:
            refusals.append(str(error))
        else:  # what was cut off held no pixels
            assert np.array_equal(zarr.open_array(tmp_path / "cut.zarr/0")[:], expected), kept
    assert len(refusals) > 25
    assert all(cut.name in text and "\n" not in text for text in refusals)
    assert {p.name for p in tmp_path.iterdir()} <= {name, cut.name, "whole.zarr", "cut.zarr"}


def test_sparse_tiles_are_counted_and_an_empty_file_refused(tmp_path):
    values = np.zeros((64, 64), "uint8")
    values[:32, :32] = noise(32, 32)
    tiles = iter([zlib.compress(values[:32, :32].tobytes()), b"", b"", b""])
    options = {"shape": (64, 64), "dtype": "uint8", "tile": (32, 32), "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", tiles, **options)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    holds(tmp_path / "a.zarr", values[None])
    assert made.missing == 3
    assert "3 strips or tiles were missing" in str(made)
    tifffile.imwrite(tmp_path / "b.tif", iter([b""] * 4), **options)
    refused(tmp_path, tmp_path / "b.tif", match="holds no pixels")


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_hostile_bytes_raise_our_errors_only(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, noise(31, 37), tile=(16, 16), compression="zlib")
    else:
        PIL.Image.fromarray(noise(31, 37)).save(path)
    data = path.read_bytes()
    for _ in range(150):
        bad = bytearray(data)
        for place in RNG.integers(4, min(len(data), 500), 3):
            bad[place] = RNG.integers(256)
        path.write_bytes(bad)
        with suppress(InputError, OutputError):  # too many samples make a chunk too large
            ingest(path, tmp_path / "out.zarr", overwrite=True, memory="50MB")
    assert {p.name for p in tmp_path.iterdir()} <= {path.name, "out.zarr"}
