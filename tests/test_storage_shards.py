"""Shards: tasks are made of whole ones, each is written once and whole, and the maps have the same bits as without."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

import pipeline
from pipeline.geometry import Interval
from pipeline.planning import Plan
from pipeline.storage import shards
from pipeline.storage.handle import Handle
from pipeline.storage.place import Place
from pipeline.storage.shards import ShardFiles

SIDE = (211, 173)
"""Primes: no chunk, shard or task divides them."""


def job(folder: Path, **output: Any) -> pipeline.Job:
    return pipeline.load(
        {
            "input": {"images": str(folder / "image.zarr")},
            "features": {
                "edge": {"rows": [[1, 2, -3], [4, -5, 6], [0, 1, 2]]},
                "dot": {"rows": [[0, 0, 1], [0, 2, 0], [1, 0, 3]]},
            },
            "layers": [
                {"type": "convolution", "name": "match", "features": ["edge", "dot"], "padding": "same"},
                {"type": "pool", "window": 3},
            ],
            "output": {"store": str(folder / "maps.zarr"), "layers": ["match", "pool"], **output},
        }
    )


@pytest.fixture
def image(tmp_path: Path) -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, 256, SIDE).astype(np.uint8)
    zarr.create_array(str(tmp_path / "image.zarr"), data=pixels, chunks=(32, 48))
    return pixels


def planned(job: pipeline.Job) -> Plan:
    return pipeline.plan(job, memory="1GB")


@pytest.mark.parametrize(
    ("chunks", "shards", "dtype"),
    [
        (48, 48, "float32"),
        (32, 64, "float16"),
        ((16, 48), (80, 48), "int8"),
        (32, 512, "uint16"),
        (300, 600, "float32"),
    ],
    ids=str,
)
def test_sharded_maps_have_the_bits_of_plain_ones(
    tmp_path: Path, image: np.ndarray, chunks: Any, shards: Any, dtype: str
) -> None:
    made = []
    for sharded in ({}, {"shards": shards}):
        plan = planned(job(tmp_path, chunks=chunks, dtype=dtype, compression="zstd", **sharded))
        assert pipeline.run(plan, "serial", overwrite=True).complete
        arrays = [zarr.open_array(f"{plan.store}/image/{name}/0", mode="r") for name in ("match", "pool")]
        assert all((a.shards is not None) == bool(sharded) for a in arrays)
        made.append([a[:] for a in arrays])
    for plain, whole in zip(*made, strict=True):
        assert np.array_equal(plain.view("u1"), whole.view("u1"))


@pytest.mark.parametrize("cluster", ["serial", "threads"])
def test_each_shard_is_written_once_and_whole(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    written: Counter[str] = Counter()
    put = ShardFiles._put

    def counting(self: ShardFiles, key: str, encoded: Any, check: Any) -> None:
        written[f"{self.folder}/{key}"] += 1
        put(self, key, encoded, check)

    monkeypatch.setattr(ShardFiles, "_put", counting)
    plan = planned(job(tmp_path, chunks=16, shards=(64, 32)))
    assert pipeline.run(plan, cluster, workers=2).complete
    assert set(written.values()) == {1}
    for name, extents in (("match", (211, 173)), ("pool", (106, 87))):
        array = zarr.open_array(f"{plan.store}/image/{name}/0", mode="r")
        assert (array.shards, array.chunks) == ((1, 64, 32), (1, 16, 16))
        count = 2 * -(-extents[0] // 64) * -(-extents[1] // 32)
        assert sum(f"/image/{name}/0/" in path for path in written) == count


def test_a_shard_is_no_larger_than_the_map_and_counts_in_the_forecast(tmp_path: Path, image: np.ndarray) -> None:
    small, large = (planned(job(tmp_path, chunks=16, **more)).images[0] for more in ({}, {"shards": 8192}))
    assert [k.array.unit for k in small.kept] == [(16, 16), (16, 16)]
    assert [k.array.unit for k in large.kept] == [(224, 176), (112, 96)]
    assert len(large.grid) == 1
    assert large.peak_memory > small.peak_memory


def test_a_shard_that_does_not_fit_the_memory_is_refused_by_its_name(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "image.zarr"), shape=(40_000, 40_000), chunks=(1024, 1024), dtype="u1")
    sharded = job(tmp_path, chunks=1024, shards=16384)
    with pytest.raises(pipeline.HaloflowError, match=r"one shard of 16384 × 16384 .* make output\.shards smaller"):
        pipeline.plan(sharded, memory="1GB")


LAYOUTS = {
    "blosc": {},
    "zstd": {"compressors": ZstdCodec(level=1)},
    "plain": {"compressors": None},
    "big-endian": {"serializer": BytesCodec(endian="big")},
    "index first": {
        "chunks": (48, 40, 32),
        "serializer": ShardingCodec(chunk_shape=(1, 8, 16), codecs=[BytesCodec()], index_location="start"),
        "shards": None,
        "compressors": None,
    },
    "index unchecked": {
        "chunks": (48, 40, 32),
        "serializer": ShardingCodec(chunk_shape=(1, 8, 16), codecs=[BytesCodec()], index_codecs=[BytesCodec()]),
        "shards": None,
        "compressors": None,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "?"])
def test_shards_of_any_layout_are_read_and_written_as_zarr_does(tmp_path: Path, layout: str, dtype: str) -> None:
    if layout == "big-endian" and np.dtype(dtype).itemsize == 1:
        return
    made = {"chunks": (1, 8, 16), "shards": (1, 40, 32), "fill_value": 1, **LAYOUTS[layout]}
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 91, 67), dtype=dtype, **made)
    values = np.random.default_rng(5).integers(0, 2 if dtype == "?" else 100, (2, 96, 96)).astype(dtype)
    values[:, :9, 20:50] = 1  # chunks of nothing but the fill value
    handle = Handle.open(Place.of(str(tmp_path / "a.zarr")), "r+")
    assert isinstance(handle.files, ShardFiles) == (not layout.startswith("index"))
    unit = array.shards or array.chunks
    handle.write((0, 0, 0), values[: unit[0], : unit[1], : unit[2]])
    assert np.array_equal(array[: unit[0], : unit[1], : unit[2]], values[:, : unit[1], : unit[2]][: unit[0]][:2])
    array[1:, 50:] = values[1:2, 50:91, :67]
    for box in [(0, 2, 0, 91, 0, 67), (1, 2, 47, 90, 1, 2), (0, 1, 39, 41, 31, 33)]:
        region = tuple(Interval(a, b) for a, b in zip(box[::2], box[1::2], strict=True))
        assert np.array_equal(handle.read(region), array[tuple(slice(i.start, i.stop) for i in region)])


@pytest.mark.parametrize("damage", ["index", "short", "chunk"])
def test_a_damaged_shard_is_named_and_fails_its_tasks_only(tmp_path: Path, image: np.ndarray, damage: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, SIDE).astype(np.uint8)
    zarr.create_array(str(tmp_path / "image.zarr"), data=pixels, chunks=(16, 16), shards=(64, 64), overwrite=True)
    shard = tmp_path / "image.zarr/c/1/1"
    held = bytearray(shard.read_bytes())
    match damage:
        case "index":
            held[-20] ^= 255
        case "short":
            held = held[:100]
        case "chunk":
            held[:40] = bytes(40)
    shard.write_bytes(bytes(held))
    plan = planned(job(tmp_path, chunks=16))
    report = pipeline.run(plan, "serial")
    assert not report.complete
    assert all("image.zarr: y [" in f["reason"] and "damaged or missing" in f["reason"] for f in report.failures)


def test_of_a_shard_only_its_index_and_the_chunks_needed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(
        tmp_path / "a.zarr",
        data=np.random.default_rng(3).integers(0, 256, (512, 512)).astype(np.uint8),
        chunks=(64, 64),
        shards=(256, 256),
        compressors=None,
    )
    read: list[int] = []
    part = shards.get_part

    def counting(path: Path, start: int, length: int) -> bytes:
        read.append(length)
        return part(path, start, length)

    monkeypatch.setattr(shards, "get_part", counting)
    handle = Handle.open(Place.of(str(tmp_path / "a.zarr")), "r")
    handle.read((Interval(60, 70), Interval(3, 5)))
    assert read == [16 * 16 + 4, 64 * 64, 64 * 64]
    handle.read((Interval(0, 1), Interval(100, 101)))
    assert read[3:] == [64 * 64]
