"""JPEG 2000, NumPy's .npy, and what bioio reads."""

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from pipeline.errors import InputError
from pipeline.ingesting.ingest import ingest
from tests.ingested import COLOURS, holds, noise, refused

JPEG2000 = {
    "grey": noise(101, 103),
    "grey16": noise(101, 103, dtype="uint16"),
    "rgb": noise(101, 103, 3),
    "rgba": noise(101, 103, 4),
}


@pytest.mark.parametrize("kind", ["jp2", "j2k"])
@pytest.mark.parametrize("name", JPEG2000)
def test_jpeg_2000(tmp_path, name, kind):
    values = JPEG2000[name]
    data = imagecodecs.jpeg2k_encode(values, level=0, codecformat=kind, reversible=True)
    (tmp_path / "a.bin").write_bytes(data)  # the name tells nothing
    ingest(tmp_path / "a.bin", tmp_path / "a.zarr", chunks=40)
    planes = np.moveaxis(values, 2, 0) if values.ndim == 3 else values[None]
    holds(tmp_path / "a.zarr", planes, COLOURS[: len(planes)] if len(planes) > 1 else None)
    for kept in (13, 40, 60, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.jp2").write_bytes(data[:kept])
        text = refused(tmp_path, tmp_path / "cut.jp2")
        assert "\n" not in text


def test_a_jpeg_2000_bomb(tmp_path):
    data = bytearray(imagecodecs.jpeg2k_encode(noise(9, 7), level=0, codecformat="j2k", reversible=True))
    data[8:16] = (100_000).to_bytes(4) * 2  # the width and height that the code stream declares
    (tmp_path / "a.j2k").write_bytes(data)
    assert "100000 × 100000" in refused(tmp_path, tmp_path / "a.j2k", match="more than the memory")
    data = bytearray(imagecodecs.jpeg2k_encode(noise(9, 7, 3), level=0, codecformat="jp2", reversible=True))
    place = data.index(b"\xff\x4f\xff\x51") + 42
    data[place + 4] = 2  # the second component is half as wide
    (tmp_path / "b.jp2").write_bytes(data)
    refused(tmp_path, tmp_path / "b.jp2", match="subsampling")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("shape", "kind"), [((101, 103), "<u2"), ((3, 51, 53), ">f4"), ((2, 3, 4, 21, 23), "bool")])
def test_npy(tmp_path, shape, kind, order):
    values = np.asarray(noise(*shape) > 99 if kind == "bool" else noise(*shape), kind, order=order)
    np.save(tmp_path / "a.npy", values)
    made = ingest(tmp_path / "a.npy", tmp_path / "a.zarr", chunks=20)
    found = zarr.open_array(tmp_path / "a.zarr/0")
    assert np.array_equal(found[:].reshape(shape), values)
    assert found.dtype == values.dtype.newbyteorder("=")
    assert "".join(made.axes) == ("tczyx" if len(shape) == 5 else "cyx")


def test_npy_that_is_no_image(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{"a": print}]]), allow_pickle=True)
    refused(tmp_path, tmp_path / "a.npy", match="never read")
    for shape in ((7,), (2, 3, 4, 5), (0, 5), (40, 50, 3)):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        refused(tmp_path, tmp_path / "a.npy", match="has the shape")
    np.save(tmp_path / "a.npy", noise(40, 50))
    data = (tmp_path / "a.npy").read_bytes()
    for kept in (7, 40, len(data) - 1):
        (tmp_path / "a.npy").write_bytes(data[:kept])
        refused(tmp_path, tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(data.replace(b"(40, 50)", b"(10**9,)"))
    refused(tmp_path, tmp_path / "a.npy")


def test_what_bioio_reads(tmp_path):
    pytest.importorskip("bioio_imageio")
    values = noise(41, 43, 3)
    PIL.Image.fromarray(values).save(tmp_path / "a.bmp")
    ingest(tmp_path / "a.bmp", tmp_path / "a.zarr", chunks=20)
    holds(tmp_path / "a.zarr", np.moveaxis(values, 2, 0), COLOURS[:3])
    (tmp_path / "b.bmp").write_text("no image")
    with pytest.raises(InputError, match="nor one that bioio's installed plugins read"):
        ingest(tmp_path / "b.bmp", tmp_path / "b.zarr")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_colours_are_shown_in_their_own(tmp_path, mode):
    PIL.Image.new(mode, (7, 5)).save(tmp_path / "a.png")
    ingest(tmp_path / "a.png", tmp_path / "a.zarr")
    shown = [(c["color"], c["active"]) for c in zarr.open_group(tmp_path / "a.zarr").attrs["ome"]["omero"]["channels"]]
    colours = [("FF0000", True), ("00FF00", True), ("0000FF", True), ("FFFFFF", False)]
    assert shown == ([("FFFFFF", True)] if mode == "L" else colours[: len(mode)])


@pytest.mark.parametrize("values", [noise(20, 30).astype("float32"), noise(20, 30, 3)], ids=["float", "bands"])
def test_lerc_of_which_pixels_would_be_wrong_is_refused(tmp_path, values):
    tifffile.imwrite(tmp_path / "a.tif", values, compression="lerc", photometric="rgb" if values.ndim == 3 else None)
    refused(tmp_path, tmp_path / "a.tif", match="LERC.*gdal_translate")
    right = noise(20, 30)
    tifffile.imwrite(tmp_path / "b.tif", right, compression="lerc")
    ingest(tmp_path / "b.tif", tmp_path / "b.zarr")
    holds(tmp_path / "b.zarr", right[None])
