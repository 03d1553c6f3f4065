"""Chunks that zarr decodes: the same numbers as without a cap, and no more memory than a chunk has for a bomb."""

import bz2
import gzip
import lzma
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from pipeline.errors import InputError
from pipeline.geometry import Interval
from pipeline.storage.images import open_image
from tests.test_hostile import blosc_claim, zstd_bomb, zstd_claim

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in:zarr.errors.ZarrUserWarning")

MANY = 2**26

BOMBS = {
    "gzip": [gzip.compress(bytes(MANY)), gzip.compress(bytes(64)) * 2000],
    "zlib": [zlib.compress(bytes(MANY))],
    "bz2": [bz2.compress(bytes(MANY))],
    "lzma": [lzma.compress(bytes(MANY), preset=6)],
    "zstd": [zstd_bomb(MANY), zstd_claim(2**40), zstd_claim(MANY)],
    "lz4": [struct.pack("<I", MANY) + b"\x1f\x00\x01\x00" + b"\xff" * 200 + b"\x00"],
    "blosc": [blosc_claim(MANY)],
}
OURS = {"gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec()}


def forms() -> list[tuple[str, str]]:
    return [(form, name) for name in BOMBS for form in ("filtered", "transposed", "sharded")]


def made(path: Path, form: str, name: str, image: np.ndarray) -> Any:
    """Make an array of chunks that only zarr reads."""
    if form == "filtered":
        delta = numcodecs.Delta(dtype="u2")
        codec = numcodecs.get_codec({"id": name})
        how: dict[str, Any] = {"zarr_format": 2, "filters": [delta], "compressors": codec}
    else:
        codec = OURS.get(name) or zarr.codecs.numcodecs.__dict__[type(numcodecs.get_codec({"id": name})).__name__]()
        how = {"compressors": [codec, Crc32cCodec()]} if form == "sharded" else {"compressors": codec}
        how |= {"shards": (64, 64)} if form == "sharded" else {"filters": TransposeCodec(order=(1, 0))}
    return zarr.create_array(path, data=image, chunks=(32, 32), **how)


@pytest.mark.parametrize(("form", "name"), forms())
def test_what_is_read_through_zarr_is_right_and_a_bomb_gets_no_more_than_its_chunk(
    tmp_path: Path, form: str, name: str
) -> None:
    image = np.random.default_rng(1).integers(0, 2**16, (64, 64)).astype("u2")
    array = made(tmp_path / "a.zarr", form, name, image)
    box = (Interval(0, 64), Interval(0, 64))
    assert np.array_equal(open_image(str(tmp_path / "a.zarr")).read(box)[0], image)
    if form == "sharded":
        return
    # One chunk alone: tracemalloc must not stop while other threads decompress, or Python itself crashes.
    chunk = (Interval(0, 32), Interval(0, 32))
    for bomb in BOMBS[name]:
        (tmp_path / "a.zarr" / array.metadata.encode_chunk_key((0, 0))).write_bytes(bomb)
        source = open_image(str(tmp_path / "a.zarr"))
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=r"a\.zarr: y .* cannot be read"):
                source.read(chunk)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 32 * 2**20


def test_images_in_archives_are_capped(tmp_path: Path) -> None:
    image = np.ones((64, 64), np.uint8)
    made = zarr.create_array(tmp_path / "b.zarr", data=image, chunks=(32, 32), compressors=GzipCodec())
    (tmp_path / "b.zarr" / made.metadata.encode_chunk_key((0, 1))).write_bytes(BOMBS["gzip"][0])
    shutil.make_archive(str(tmp_path / "b.zarr"), "zip", tmp_path / "b.zarr")
    source = open_image(str(tmp_path / "b.zarr.zip"))
    assert source.read((Interval(0, 32), Interval(0, 32))).all()
    with pytest.raises(InputError, match=r"or more where a chunk has 1024"):
        source.read((Interval(0, 64), Interval(0, 64)))


def test_a_frame_of_zstd_that_does_not_say_its_size(tmp_path: Path) -> None:
    image = np.full((32, 32), 7, np.uint8)
    kept = zarr.create_array(
        tmp_path / "c.zarr", data=image, chunks=(32, 32), filters=TransposeCodec(order=(1, 0)), compressors=ZstdCodec()
    )
    frame = bytes.fromhex("28b52ffd") + b"\x00\x38" + (1 | 1 << 1 | 1024 << 3).to_bytes(3, "little") + b"\x09"
    (tmp_path / "c.zarr" / kept.metadata.encode_chunk_key((0, 0))).write_bytes(frame)
    assert (open_image(str(tmp_path / "c.zarr")).read((Interval(0, 32), Interval(0, 32))) == 9).all()
