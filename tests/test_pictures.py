"""Image files become OME-Zarr images of the same values."""

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from pipeline.ingesting.ingest import ingest
from pipeline.storage.images import open_image
from tests.ingested import COLOURS, RNG, holds, noise, png

PICTURES = {
    "1": noise(101, 103) > 127,
    "L": noise(101, 103),
    "I;16": noise(101, 103, dtype="uint16"),
    "RGB": noise(101, 103, 3),
    "RGBA": noise(101, 103, 4),
}


@pytest.mark.parametrize("chunks", [1, 32, (101, 7), 1024])
@pytest.mark.parametrize("mode", PICTURES)
def test_png_modes(tmp_path, mode, chunks):
    values = PICTURES[mode][:13, :17] if chunks == 1 else PICTURES[mode]
    picture = PIL.Image.fromarray(values)
    assert picture.mode == mode
    picture.save(tmp_path / "a.png")
    made = ingest(tmp_path / "a.png", tmp_path / "a.zarr", chunks=chunks)
    colour = values.ndim == 3
    planes = np.moveaxis(values, 2, 0) if colour else values[None]
    holds(tmp_path / "a.zarr", planes, COLOURS[: values.shape[2]] if colour else None)
    assert made.dtype == values.dtype.name
    assert made.extents == values.shape[:2]
    wanted = chunks if isinstance(chunks, tuple) else (chunks, chunks)
    assert made.chunks == tuple(map(min, wanted, values.shape))
    assert zarr.open_array(tmp_path / "a.zarr/0").chunks == (1, *made.chunks)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [2, 4, 6])
def test_png_colours_of_any_depth(tmp_path, colour, bits):
    bands = {2: 3, 4: 2, 6: 4}[colour]
    values = noise(5, 7, bands, dtype=f"uint{bits}")
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(7, 5, bits, colour, rows))
    ingest(tmp_path / "a.png", tmp_path / "a.zarr")
    holds(tmp_path / "a.zarr", np.moveaxis(values, 2, 0), ("0", "alpha") if colour == 4 else COLOURS[:bands])


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_and_alpha_are_named_alike_in_every_format(tmp_path, ending):
    values = noise(31, 37, 2)
    picture = PIL.Image.fromarray(values)
    assert picture.mode == "LA"
    picture.save(tmp_path / f"a.{ending}")
    ingest(tmp_path / f"a.{ending}", tmp_path / "a.zarr")
    holds(tmp_path / "a.zarr", np.moveaxis(values, 2, 0), ("0", "alpha"))


def test_two_samples_of_which_none_is_alpha_are_numbered(tmp_path):
    values = noise(31, 37, 2)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unspecified"]}
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    holds(tmp_path / "a.zarr", np.moveaxis(values, 2, 0))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_greys_of_few_bits_go_from_black_to_white(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (6, 8))
    packed = np.packbits((values[..., None] >> np.arange(bits)[::-1] & 1).astype("uint8").reshape(6, -1), axis=1)
    (tmp_path / "a.png").write_bytes(png(8, 6, bits, 0, b"".join(b"\0" + row.tobytes() for row in packed)))
    ingest(tmp_path / "a.png", tmp_path / "a.zarr")
    holds(tmp_path / "a.zarr", (values > 0 if bits == 1 else (values * 255 // (2**bits - 1)).astype("uint8"))[None])


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_a_palette_is_expanded(tmp_path, transparency):
    picture = PIL.Image.fromarray(PICTURES["RGB"]).quantize(31)
    options = {} if transparency is None else {"transparency": transparency}
    picture.save(tmp_path / "a.png", **options)
    ingest(tmp_path / "a.png", tmp_path / "a.zarr", chunks=50)
    holds(tmp_path / "a.zarr", np.moveaxis(np.asarray(picture.convert("RGB")), 2, 0), COLOURS[:3])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path, mode):
    PIL.Image.fromarray(PICTURES[mode]).save(tmp_path / "a.jpg", quality=90)
    ingest(tmp_path / "a.jpg", tmp_path / "a.zarr", chunks=40)
    with PIL.Image.open(tmp_path / "a.jpg") as picture:
        values = np.asarray(picture)
    planes = np.moveaxis(values, 2, 0) if mode == "RGB" else values[None]
    holds(tmp_path / "a.zarr", planes, COLOURS[:3] if mode == "RGB" else None)


def test_a_large_picture_passes_pillows_own_limit(tmp_path, monkeypatch):
    values = np.add.outer(np.arange(4200), np.arange(4201)).astype("uint8")
    PIL.Image.fromarray(values).save(tmp_path / "a.png", compress_level=1)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2**24)  # warnings are errors here
    ingest(tmp_path / "a.png", tmp_path / "a.zarr", chunks=8192)
    holds(tmp_path / "a.zarr", values[None])


RGB = {"photometric": "rgb"}
TIFFS = {
    "single strip": ((101, 103), "uint8", {}),
    "single strip 16 bit big-endian": ((101, 103), "uint16", {"byteorder": ">"}),
    "contiguous strips": ((101, 103), "int16", {"rowsperstrip": 7}),
    "bigtiff": ((101, 103), "uint16", {"bigtiff": True}),
    "bigtiff tiled big-endian": (
        (101, 103),
        "uint32",
        {"bigtiff": True, "byteorder": ">", "tile": (16, 32)},
    ),
    "striped lzw": ((101, 103), "uint8", {"rowsperstrip": 7, "compression": "lzw"}),
    "striped lzw predictor": (
        (101, 103),
        "uint16",
        {"rowsperstrip": 11, "compression": "lzw", "predictor": True},
    ),
    "tiled": ((101, 103), "uint8", {"tile": (16, 16)}),
    "tiled zstd": ((211, 103), "int32", {"tile": (64, 32), "compression": "zstd"}),
    "tall tiles": ((211, 103), "uint8", {"tile": (128, 16), "compression": "zlib"}),
    "rgb tiled deflate": ((101, 103, 3), "uint8", {"tile": (32, 16), "compression": "zlib", **RGB}),
    "rgb striped": ((101, 103, 3), "uint8", {"rowsperstrip": 10, **RGB}),
    "rgb single strip": ((101, 103, 3), "uint16", RGB),
    "rgba": ((101, 103, 4), "uint8", {**RGB, "extrasamples": ["unassalpha"], "compression": "zlib"}),
    "rgb planar": ((3, 101, 103), "uint8", {**RGB, "planarconfig": "separate", "tile": (16, 16)}),
    "rgb planar strips": ((3, 101, 103), "uint8", {**RGB, "planarconfig": "separate"}),
    "pages are channels": ((5, 101, 103), "uint16", {"metadata": {"axes": "CYX"}}),
    "pages are channels lzw": ((5, 101, 103), "uint8", {"metadata": {"axes": "CYX"}, "compression": "lzw"}),
    "imagej": ((5, 101, 103), "uint16", {"imagej": True, "metadata": {"axes": "CYX"}}),
    "ome with axes of one": ((1, 1, 2, 101, 103), "uint8", {"ome": True, "metadata": {"axes": "TZCYX"}}),
    "one row": ((1, 103), "uint8", {}),
    "one pixel": ((1, 1), "uint8", {"compression": "zlib"}),
}


@pytest.mark.parametrize("chunks", [31, 1024])
@pytest.mark.parametrize("name", TIFFS)
def test_tiff_layouts(tmp_path, name, chunks):
    shape, dtype, options = TIFFS[name]
    values = noise(*shape, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    made = ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=chunks)
    colour = "rgb" in name
    if colour and shape[0] != 3:
        values = np.moveaxis(values, 2, 0)
    values = values.reshape(-1, *made.extents)
    holds(tmp_path / "a.zarr", values, COLOURS[: len(values)] if colour else None)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["bool", "float16", "float32", "float64"])
def test_tiff_booleans_and_floats(tmp_path, kind, compression):
    values = noise(101, 103) > 99 if kind == "bool" else RNG.normal(size=(101, 103)).astype(kind)
    if kind != "bool":
        values[:32, :32] = -0.0  # a chunk that equals its fill value, and is not the same bits
        values[50, 50:53] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=32)
    holds(tmp_path / "a.zarr", values[None])
    assert len(list((tmp_path / "a.zarr/0/c").rglob("[0-9]"))) > 16  # empty chunks are written too


def test_jpeg_tiles_are_rgb(tmp_path):
    smooth = np.add.outer(np.arange(101), np.arange(103)).astype("uint8")
    values = np.stack([smooth, smooth // 2, 255 - smooth], 2)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), compression="jpeg", **RGB)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=50)
    holds(tmp_path / "a.zarr", np.moveaxis(tifffile.imread(tmp_path / "a.tif"), 2, 0), COLOURS[:3])


def test_the_first_level_of_a_pyramid(tmp_path):
    values = noise(128, 130)
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        out.write(values, subifds=1, tile=(32, 32), compression="zlib")
        out.write(values[::2, ::2], subfiletype=1, tile=(32, 32), compression="zlib")
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr", chunks=100)
    holds(tmp_path / "a.zarr", values[None])


def test_ome_tiff_names_and_sizes(tmp_path):
    values = noise(2, 101, 103, dtype="uint16")
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "nm",
        "Channel": {"Name": ["DAPI", "488, high"]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", values, ome=True, metadata=metadata, tile=(32, 32))
    ingest(tmp_path / "a.ome.tif", tmp_path / "a.zarr")
    source = holds(tmp_path / "a.zarr", values, ("DAPI", "488, high"))
    assert (source.scale, source.units) == ((0.5, 0.25), ("nanometer", "nanometer"))


def test_sides_of_a_pixel_in_two_units(tmp_path):
    sizes = {"PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
    places = {"PositionX": [3000.0], "PositionXUnit": ["nm"], "PositionY": [2.0], "PositionYUnit": ["µm"]}
    metadata = {"axes": "YX", **sizes, "Plane": places}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(9, 9), ome=True, metadata=metadata)
    ingest(tmp_path / "a.ome.tif", tmp_path / "a.zarr")
    source = open_image(str(tmp_path / "a.zarr"))
    assert (source.scale, source.units) == ((0.5, 0.25), ("micrometer", "micrometer"))
    assert source.translation == (2.0, 3.0)
    for name, told in {
        "b": {"PhysicalSizeXUnit": "pixel"},
        "c": {"PhysicalSizeX": 1e303, "PhysicalSizeXUnit": "m"},
    }.items():
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", noise(9, 9), ome=True, metadata={**metadata, **told})
        ingest(tmp_path / f"{name}.ome.tif", tmp_path / f"{name}.zarr")
        source = open_image(str(tmp_path / f"{name}.zarr"))
        assert (source.scale, source.units) == ((1.0, 1.0), (None, None))


def test_sides_of_a_pixel_in_two_units_of_imagej(tmp_path):
    metadata = {"axes": "YX", "unit": "um", "yunit": "mm"}
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9), imagej=True, resolution=(2, 4), metadata=metadata)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    source = open_image(str(tmp_path / "a.zarr"))
    assert (source.scale, source.units) == ((0.25, 0.0005), ("millimeter", "millimeter"))


@pytest.mark.parametrize("spelt", ["\u00b5m", "\u03bcm", "um"])
def test_micrometres_however_they_are_spelt(tmp_path, spelt):
    told = {f"PhysicalSize{axis}{end}": word for axis in "XY" for end, word in (("", 0.5), ("Unit", spelt))}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(9, 9), ome=True, metadata={"axes": "YX", **told})
    ingest(tmp_path / "a.ome.tif", tmp_path / "a.zarr")
    source = open_image(str(tmp_path / "a.zarr"))
    assert (source.scale, source.units) == ((0.5, 0.5), ("micrometer", "micrometer"))


@pytest.mark.parametrize(
    ("unit", "scale", "units"), [("CENTIMETER", (2.5, 5.0), "micrometer"), ("INCH", (1.0, 1.0), None)]
)
def test_resolution_tags(tmp_path, unit, scale, units):
    tifffile.imwrite(tmp_path / "a.tif", noise(9, 9), resolution=(2000, 4000), resolutionunit=unit)
    ingest(tmp_path / "a.tif", tmp_path / "a.zarr")
    source = open_image(str(tmp_path / "a.zarr"))
    assert (source.scale, source.units) == (scale, (units, units))
