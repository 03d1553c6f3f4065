"""However an image is stored, a run over it gives the bits that it gives over the same pixels stored plainly."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc, GZip, Zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

import pipeline
from pipeline.errors import InputError
from pipeline.geometry import Interval
from pipeline.storage.images import open_image

SHAPE, CHUNKS = (2, 61, 47), (1, 16, 12)
V2: dict[str, dict[str, Any]] = {
    "plain": {"compressors": None},
    "Fortran order": {"order": "F", "compressors": GZip(5)},
    "blosc lz4": {"compressors": Blosc("lz4", 5, Blosc.SHUFFLE)},
    "blosc zstd, bits shuffled": {"compressors": Blosc("zstd", 3, Blosc.BITSHUFFLE)},
    "zstd": {"compressors": Zstd(3)},
    "gzip": {"compressors": GZip(5)},
}
V3: dict[str, dict[str, Any]] = {
    "plain": {"compressors": None},
    "big-endian": {"serializer": BytesCodec(endian="big"), "compressors": ZstdCodec(level=3)},
    "transposed": {"filters": [TransposeCodec(order=(2, 1, 0))], "compressors": GzipCodec(level=5)},
    "blosc": {"compressors": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")},
    "zstd": {"compressors": ZstdCodec(level=3)},
    "gzip": {"compressors": GzipCodec(level=5)},
    "checksums": {"compressors": [ZstdCodec(level=3), Crc32cCodec()]},
    "sharded": {"shards": (2, 32, 24), "compressors": ZstdCodec(level=3)},
}
FORMS = [(2, name) for name in V2] + [(3, name) for name in V3]
DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64"]


def maps(folder: Path, image: str) -> np.ndarray:
    """Return the bits of the map that a run over an image makes."""
    job = pipeline.load(
        {
            "input": {"images": str(folder / image), "black": 0, "white": 100},
            "features": {"edge": {"rows": [[[1, -2, 3], [4, 5, -6]], [[7, 8, 9], [-1, 2, 2]]]}},
            "layers": [{"type": "convolution", "features": "edge", "padding": "same"}, {"type": "pool"}],
            "output": {"store": str(folder / "maps.zarr"), "chunks": 8},
        }
    )
    assert pipeline.run(pipeline.plan(job), "serial", overwrite=True).complete
    (group,) = (path for path in (folder / "maps.zarr").iterdir() if (path / "pool").is_dir())
    return np.asarray(zarr.open_array(group / "pool" / "0", mode="r")).view(np.uint32)


def pixels(dtype: str) -> np.ndarray:
    values = np.random.default_rng(7).integers(1, 100, SHAPE)
    made = (values > 50 if dtype == "bool" else values).astype(dtype)
    made[:, 16:32, 12:24] = 0  # a chunk that is not stored
    return made


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_form_of_the_store_does_not_matter(tmp_path: Path, dtype: str) -> None:
    image = pixels(dtype)
    zarr.create_array(tmp_path / "plain.zarr", data=image, chunks=SHAPE)
    expected = maps(tmp_path, "plain.zarr")
    for number, (form, name) in enumerate(FORMS):
        settings = (V2 if form == 2 else V3)[name]
        kept = {"write_empty_chunks": False}
        path = tmp_path / f"image-{number}.zarr"
        array = zarr.create_array(
            path, shape=SHAPE, chunks=CHUNKS, dtype=dtype, zarr_format=form, fill_value=0, config=kept, **settings
        )
        array[...] = image
        assert form == 3 or array.metadata.order == settings.get("order", "C")
        assert np.array_equal(maps(tmp_path, path.name), expected), (form, name)


@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", ">f8"])
def test_format_2_may_hold_big_endian_numbers(tmp_path: Path, dtype: str) -> None:
    image = pixels(dtype)
    zarr.create_array(tmp_path / "plain.zarr", data=image.astype(dtype[1:]), chunks=SHAPE)
    array = zarr.create_array(tmp_path / "big.zarr", shape=SHAPE, chunks=CHUNKS, dtype=dtype, zarr_format=2)
    array[...] = image
    assert np.array_equal(maps(tmp_path, "big.zarr"), maps(tmp_path, "plain.zarr"))


@pytest.mark.parametrize(("form", "name"), [case for case in FORMS if case[1] != "sharded"])
def test_a_chunk_that_is_too_short_is_damaged(tmp_path: Path, form: int, name: str) -> None:
    """No pixel may be what memory happened to hold before."""
    settings = (V2 if form == 2 else V3)[name]
    keys = {}
    for rows in (16, 8):
        path = tmp_path / f"{rows}.zarr"
        made = zarr.create_array(path, data=pixels("uint16"), chunks=(1, rows, 12), zarr_format=form, **settings)
        keys[rows] = path / made.metadata.encode_chunk_key((0, 0, 0))
    shutil.copy(keys[8], keys[16])
    with pytest.raises(InputError, match=r"16\.zarr: y \[0, 20\), x \[0, 20\) cannot be read: a chunk is damaged"):
        open_image(str(tmp_path / "16.zarr")).read((Interval(0, 20), Interval(0, 20)))
