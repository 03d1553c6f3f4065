"""Shards: tasks are made of whole ones, each is written once and whole, and the maps have the same bits as without."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

import pipeline
from pipeline.planning import Plan

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
    put = LocalStore.set

    async def counting(self: LocalStore, key: str, *words: Any, **named: Any) -> None:
        written[f"{self.root}/{key}"] += "/c/" in f"/{key}"
        await put(self, key, *words, **named)

    monkeypatch.setattr(LocalStore, "set", counting)
    plan = planned(job(tmp_path, chunks=16, shards=(64, 32)))
    assert pipeline.run(plan, cluster, workers=2).complete
    shards = {path: n for path, n in written.items() if n}
    assert set(shards.values()) == {1}
    for name, extents in (("match", (211, 173)), ("pool", (106, 87))):
        array = zarr.open_array(f"{plan.store}/image/{name}/0", mode="r")
        assert (array.shards, array.chunks) == ((1, 64, 32), (1, 16, 16))
        count = 2 * -(-extents[0] // 64) * -(-extents[1] // 32)
        assert sum(f"/image/{name}/0/" in path for path in shards) == count


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
