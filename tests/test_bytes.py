"""Bytes, not seconds: what goes through the store, counted there."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

import pipeline
from pipeline.storage import chunkfiles, shards

LOCK = Lock()


@dataclass
class Counted:
    """Bytes read, and writes, by the path of the chunk."""

    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)

    def bytes_of(self, store: Path) -> int:
        return sum(n for path, n in self.read.items() if path.startswith(f"{store}/"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counts = Counted()
    get, put = LocalStore.get, LocalStore.set

    async def counting_get(self: LocalStore, key: str, *words: Any, **named: Any) -> Any:
        found = await get(self, key, *words, **named)
        if found is not None and not key.endswith(("zarr.json", ".zarray", ".zattrs")):
            with LOCK:
                counts.read[f"{self.root}/{key}"] += len(found)
        return found

    async def counting_set(self: LocalStore, key: str, *words: Any, **named: Any) -> None:
        if not key.endswith("zarr.json"):
            with LOCK:
                counts.written[f"{self.root}/{key}"] += 1
        await put(self, key, *words, **named)

    file_get, file_put = chunkfiles.get, chunkfiles.ChunkFiles._put

    def counting_file_get(path: str) -> bytes:
        found = file_get(path)
        with LOCK:
            counts.read[path] += len(found)
        return found

    def counting_file_put(self: chunkfiles.ChunkFiles, key: str, encoded: Any, check: Any) -> None:
        with LOCK:
            counts.written[f"{self.folder}/{key}"] += 1
        file_put(self, key, encoded, check)

    def counting_part(path: str, start: int, length: int) -> bytes:
        with LOCK:
            counts.read[path] += length
        return get_part(path, start, length)

    get_part = shards.get_part
    monkeypatch.setattr(shards, "get_part", counting_part)
    monkeypatch.setattr(chunkfiles, "get", counting_file_get)
    monkeypatch.setattr(chunkfiles.ChunkFiles, "_put", counting_file_put)
    monkeypatch.setattr(LocalStore, "get", counting_get)
    monkeypatch.setattr(LocalStore, "set", counting_set)
    return counts


def image(path: Path, side: int, chunk: int, **more: Any) -> int:
    """Make an image of noise; return the bytes of its chunks in the store."""
    pixels = np.random.default_rng(7).integers(0, 256, (side, side)).astype(np.uint8)
    zarr.create_array(str(path), data=pixels, chunks=(chunk, chunk), **more)
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sum(file.stat().st_size for file in files if file.name != "zarr.json" and not file.name.startswith(".z"))


def load(folder: Path, chunk: int, padding: str = "valid") -> pipeline.Job:
    return pipeline.load(
        {
            "input": {"images": str(folder / "image.zarr")},
            "features": {"edge": {"rows": [[1, 2, -3], [4, -5, 6], [0, 1, 2]]}},
            "layers": [
                {"type": "convolution", "features": "edge", "padding": padding},
                {"type": "relu"},
                {"type": "pool"},
            ],
            "output": {"store": str(folder / "maps.zarr"), "chunks": chunk},
        }
    )


def cut(planned: pipeline.Plan, step: int, room: int = 10**8) -> pipeline.Plan:
    """Return the plan with blocks of ``step`` input pixels, and as many bytes of chunks kept as fit the room."""
    (one,) = planned.images
    grid, cache = replace(one.reading, grid=replace(one.grid, step=(step, step), band=0)).fitted(room)
    return replace(planned, images=(replace(one, grid=grid, cache=cache),))


@pytest.mark.parametrize("cluster", ["serial", "threads"])
@pytest.mark.parametrize(
    ("side", "chunk", "padding"), [(512, 64, "valid"), (512, 64, "same"), (8192, 1024, "valid")], ids=str
)
def test_chunks_are_decoded_about_once_and_each_unit_is_written_once(
    tmp_path: Path, counted: Counted, cluster: str, side: int, chunk: int, padding: str
) -> None:
    stored = image(tmp_path / "image.zarr", side, chunk)
    planned = cut(pipeline.plan(load(tmp_path, chunk, padding)), 2 * chunk)
    assert pipeline.run(planned, cluster, workers=2).complete
    read = counted.bytes_of(tmp_path / "image.zarr")
    assert stored <= read <= 1.15 * stored
    if cluster == "serial":
        assert read == stored
        assert planned.images[0].bytes_read == side * side
    units = Counter({path: n for path, n in counted.written.items() if "/maps.zarr/" in path or ".new/" in path})
    assert len(units) == (side // 2 // chunk) ** 2
    assert set(units.values()) == {1}
    assert counted.bytes_of(tmp_path / "maps.zarr") == 0


@pytest.mark.parametrize("store", [{"zarr_format": 2}, {"shards": (128, 128)}], ids=["v2", "shards"])
def test_other_stores_are_decoded_about_once_too(tmp_path: Path, counted: Counted, store: dict[str, Any]) -> None:
    stored = image(tmp_path / "image.zarr", 512, 64, **store)
    assert pipeline.run(cut(pipeline.plan(load(tmp_path, 64)), 128), "serial").complete
    assert stored * 0.98 <= counted.bytes_of(tmp_path / "image.zarr") <= 1.15 * stored


@pytest.mark.parametrize("cluster", ["serial", "threads"])
def test_a_run_sees_an_image_that_was_changed_since_the_last(tmp_path: Path, cluster: str) -> None:
    image(tmp_path / "image.zarr", 256, 64)
    job = load(tmp_path, 64)
    planned = cut(pipeline.plan(job), 128)
    assert planned.images[0].cache
    source = zarr.open_array(tmp_path / "image.zarr", mode="r+")
    for value in (3, 200):
        source[100:150] = value
        assert pipeline.run(planned, cluster, workers=2, overwrite=True).complete
        made = zarr.open_array(f"{planned.store}/image/pool/0", mode="r")[:]
        assert np.array_equal(made, job.stack(source[:]))


@pytest.mark.parametrize(
    ("room", "bands"),
    [(0, (0, False)), (15_000, (0, False)), (200_000, (1, True)), (800_000, (3, True)), (10**7, (0, True))],
)
def test_the_forecast_of_bytes_is_exact_for_one_worker_whatever_fits(
    tmp_path: Path, counted: Counted, room: int, bands: tuple[int, bool]
) -> None:
    image(tmp_path / "image.zarr", 1000, 64, compressors=None)
    planned = cut(pipeline.plan(load(tmp_path, 64, "same")), 128, room)
    (one,) = planned.images
    assert one.cache <= room
    assert pipeline.run(planned, "serial").complete
    assert counted.bytes_of(tmp_path / "image.zarr") == one.bytes_read
    # Nothing kept; bands of one block, of some, of all.
    assert (one.grid.band, one.cache > 0) == bands
