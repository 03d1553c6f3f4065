"""Pyramids: every level as NumPy makes it of the level before, the same bits by every way, in the right place."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.execute import pyramids, task
from pipeline.pixels import Encoding
from pipeline.storage import chunkfiles, maps, pyramid
from pipeline.storage.codecs import Codec
from pipeline.storage.maps import Level, MapArray

EXTENTS = (101, 149)
"""Primes: at every level a row or a column is left over somewhere."""


def job(folder: Path, **output: Any) -> pipeline.Job:
    return pipeline.load(
        {
            "input": {"images": str(folder / "image.zarr"), "black": -3, "white": 3},
            "features": {"edge": {"rows": [[1, 2, -3], [4, -5, 6]]}, "dot": {"rows": [[0, 0, 1], [0, 2, 0]]}},
            "layers": [
                {"type": "convolution", "name": "match", "features": ["edge", "dot"], "padding": "same"},
                {"type": "pool", "window": 3},
            ],
            "output": {"store": str(folder / "maps.zarr"), "layers": ["match", "pool"], "pyramid": "mean", **output},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("pyramid")
    pixels = np.random.default_rng(3).normal(size=EXTENTS).astype(np.float32)
    pixels[40:43, 50] = np.nan
    pixels[80, 100:104] = np.inf, -np.inf, np.inf, 1
    zarr.create_array(str(made / "image.zarr"), data=pixels, chunks=(64, 48))
    return made


def run(folder: Path, cluster: str = "serial", *, resume: bool = False, **output: Any) -> dict[str, list[np.ndarray]]:
    plan = pipeline.plan(job(folder, **output), memory="2GB")
    report = pipeline.run(plan, cluster, workers=2, overwrite=not resume, resume=resume)
    assert report.complete, report
    found = {}
    for name in ("match", "pool"):
        group = zarr.open_group(str(folder / f"maps.zarr/image/{name}"), mode="r", use_consolidated=False)
        found[name] = [np.asarray(group[str(number)]) for number in range(len(list(group.array_keys())))]
    return found


def expected(stored: np.ndarray, shrink: str, encoding: Encoding) -> np.ndarray:
    """The level after ``stored``, by NumPy: block by block, in float64, of the pixels there are."""
    steps = [min(2, n) for n in stored.shape[1:]]
    rows, columns = (-(-n // s) for n, s in zip(stored.shape[1:], steps, strict=True))
    values = encoding.decode(stored)
    made = np.empty((len(stored), rows, columns))
    for c, y, x in np.ndindex(made.shape):
        block = values[c, y * steps[0] : (y + 1) * steps[0], x * steps[1] : (x + 1) * steps[1]]
        with np.errstate(invalid="ignore"):
            made[c, y, x] = block.mean() if shrink == "mean" else block.max()
    return made


@pytest.mark.parametrize("shrink", ["mean", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint16"])
def test_every_level_is_made_of_the_one_before(folder: Path, shrink: str, dtype: str) -> None:
    encoding = Encoding(dtype)
    found = run(folder, chunks=24, dtype=dtype, pyramid=shrink)
    assert [level.shape[1:] for level in found["match"]] == [(101, 149), (51, 75), (26, 38), (13, 19)]
    assert [level.shape[1:] for level in found["pool"]] == [(50, 74), (25, 37), (13, 19)]
    for levels in found.values():
        assert np.isnan(encoding.decode(levels[-1])).any()
        for before, after in pairwise(levels):
            assert after.dtype == dtype
            wanted = expected(before, shrink, encoding)
            if encoding.is_scaled:  # the nearest integer there is
                off = np.abs(encoding.decode(after) - wanted)
                assert np.array_equal(np.isnan(wanted), np.isnan(off))
                assert np.nanmax(off) <= encoding.attributes["scale_factor"] * (0.5 + 1e-6)
            else:
                rounded = wanted.astype(np.float32).astype(dtype)
                np.testing.assert_array_equal(after, rounded)


WAYS = [
    {"chunks": 256},
    {"chunks": (16, 200)},
    {"chunks": 16, "shards": 64},
    {"chunks": (32, 16), "shards": (32, 160), "compression": "none"},
    {"chunks": 37, "ome_zarr": "0.4"},
    {"chunks": 32, "cluster": "threads"},
]


@pytest.fixture
def _tiny_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let levels be made along with small units."""
    monkeypatch.setattr(maps, "LEAST", 4)


@pytest.mark.usefixtures("_tiny_units")
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_chunks_shards_tasks_and_executors_change_no_bit(
    folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(maps, "LEAST", 10**6)  # all of it at the end
        patch.setattr(pyramids, "SMALL", 10**4)  # the larger levels by the workers, the others in this process
        apart = run(folder, "threads", chunks=20, dtype=dtype)
    along = 0
    for way in WAYS if dtype == "float32" else WAYS[2:4]:
        found = run(folder, dtype=dtype, **way)
        plan = pipeline.plan(job(folder, dtype=dtype, **{k: v for k, v in way.items() if k != "cluster"}))
        along += sum(level.along for k in plan.images[0].kept for level in k.array.levels[1:])
        for name, levels in found.items():
            for one, other in zip(levels, apart[name], strict=False):  # as deep as both go
                assert one.shape == other.shape
                assert np.array_equal(one.view("u1"), other.view("u1")), (way, name, one.shape)
    assert along >= 4


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()
    put = chunkfiles.ChunkFiles._put

    def counting(self: chunkfiles.ChunkFiles, key: str, encoded: Any, check: Any) -> None:
        counts[f"{self.folder}/{key}"] += 1
        put(self, key, encoded, check)

    monkeypatch.setattr(chunkfiles.ChunkFiles, "_put", counting)
    return counts


@pytest.mark.usefixtures("_tiny_units")
def test_each_unit_of_each_level_is_written_once(folder: Path, written: Counter[str]) -> None:
    run(folder, chunks=32, ome_zarr="0.5")
    assert set(written.values()) == {1}
    (image,) = pipeline.plan(job(folder, chunks=32)).images
    units = sum(len(k.array.channels) * math.prod(level.counts) for k in image.kept for level in k.array.levels)
    assert len(written) == units
    assert [level.along for level in image.kept[0].array.levels] == [True, True, True, False]


def a_map(extents: tuple[int, int], chunks: tuple[int, int], shards: tuple[int, int] | None = None) -> MapArray:
    return MapArray(
        image="x",
        layer="y",
        channels=("one",),
        extents=extents,
        chunks=chunks,
        encoding=Encoding(),
        compression=Codec(),
        scale=(0.5, 3.0),
        translation=(10.0, -7.25),
        units=("micrometer", None),
        shards=shards,
        shrink="mean",
    )


@pytest.mark.parametrize(
    ("extents", "chunks", "shards"),
    [
        ((100_003, 60_013), (1024, 1024), None),
        ((100_003, 60_013), (512, 512), (4096, 2048)),
        ((5000, 5000), (512, 512), (1536, 1536)),
        ((700, 90_000), (700, 1024), None),
        ((1, 5000), (1, 512), None),
        ((3, 2), (1, 1), None),
        ((9000, 9000), (9000, 9000), None),
    ],
)
def test_levels_halve_down_to_a_chunk_and_their_units_fit(extents: Any, chunks: Any, shards: Any) -> None:
    levels = a_map(extents, chunks, shards).levels
    for before, level in pairwise(levels):
        assert level.extents == tuple(-(-e // 2) for e in before.extents)
        assert level.reduction == tuple(min(2**n, r) for n, r in zip((len(levels),) * 2, level.reduction, strict=True))
        assert all(u % c == 0 for u, c in zip(level.unit, level.chunks, strict=True))
        if level.along:  # the same units as the map's, none of which reaches into another's part
            assert level.counts == levels[0].counts
            parts = zip(level.unit, levels[0].unit, level.reduction, level.counts, strict=True)
            assert all(u * r == finest for u, finest, r, n in parts if n > 1)
    assert all(e <= min(c, 1024) for e, c in zip(levels[-1].extents, chunks, strict=True))
    assert all(any(e > min(c, 1024) for e, c in zip(lev.extents, chunks, strict=True)) for lev in levels[:-1])


@pytest.mark.parametrize("extents", [(64, 40), (1, 64)])
def test_a_level_lies_where_its_pixels_came_from(extents: tuple[int, int]) -> None:
    """The centre of a level's pixel is the centroid of the map's pixels that a change of it comes from."""
    m = a_map(extents, (4, 4))
    datasets = m.attributes([maps.Window.of(0, 1)])["ome"]["multiscales"][0]["datasets"]
    assert [d["path"] for d in datasets] == [str(n) for n in range(len(m.levels))]
    grid = np.arange(math.prod(extents), dtype=float).reshape(1, *extents)
    centres = [t + s * np.arange(n) for t, s, n in zip(m.translation, m.scale, extents, strict=True)]
    for number, told in enumerate(datasets):
        (scale, shift) = (t[t["type"]] for t in told["coordinateTransformations"])
        level = m.levels[number]
        for y, x in {(0, 0), tuple((e - 1) // 2 for e in level.extents)}:
            # Which pixels of the map: followed down by raising one after another.
            touched = [
                place for place in np.ndindex(extents) if _reaches(grid, place, m.levels[1 : number + 1], (y, x))
            ]
            centroid = [np.mean([centres[a][place[a]] for place in touched]) for a in (0, 1)]
            at = [t + s * n for t, s, n in zip(shift[1:], scale[1:], (y, x), strict=True)]
            np.testing.assert_allclose(at, centroid, rtol=1e-12)


def _reaches(grid: np.ndarray, place: tuple[int, ...], levels: tuple[Level, ...], target: tuple[int, int]) -> bool:
    raised = np.zeros_like(grid, np.float32)
    raised[0, *place] = 1
    for level in levels:
        made = np.empty((1, *level.extents), np.float32)
        pyramid.mean(raised, level.steps, np.nan, False, made)
        raised = made
    return bool(raised[0, *target])


def test_a_level_that_cannot_be_made_is_a_failure_and_the_store_is_not_complete(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(task, "make", full)
    report = pipeline.run(pipeline.plan(job(folder, chunks=64)), "serial", overwrite=True)
    assert not report.complete
    assert [f["task"] for f in report.failures] == ["level 1 of match", "level 1 of pool"]
    assert "no space left on device" in report.failures[0]["reason"]
    root = zarr.open_group(str(folder / "maps.zarr"), mode="r")
    assert root.attrs["_haloflow"]["complete"] is False


@pytest.mark.parametrize("cluster", ["serial", "threads"])
def test_levels_that_workers_did_not_make_are_made_by_a_resume(
    folder: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tasks are recorded, so that nothing but levels is left."""
    monkeypatch.setattr(pyramids, "SMALL", 0)  # all by the workers
    peace = run(folder, chunks=64)
    with monkeypatch.context() as patch:
        patch.setattr(task, "make", lambda *_: 1 / 0)
        assert not pipeline.run(pipeline.plan(job(folder, chunks=64)), cluster, overwrite=True).complete
    again = run(folder, cluster, resume=True, chunks=64)
    for name, levels in peace.items():
        assert len(levels) > 1
        for one, other in zip(levels, again[name], strict=True):
            assert np.array_equal(one.view("u1"), other.view("u1"))


def test_empty_space_stays_empty_in_every_level(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "image.zarr"), shape=(512, 512), chunks=(32, 32), dtype="f4")
    array[:32, :32] = 1
    found = run(tmp_path, chunks=32)
    for levels in found.values():
        for before, after in pairwise(levels):
            np.testing.assert_array_equal(after, expected(before, "mean", Encoding()).astype("f4"))
    group = zarr.open_group(str(tmp_path / "maps.zarr/image/match"), mode="r")
    assert group["0"].nchunks_initialized < group["0"].nchunks / 2
    assert group["1"].nchunks_initialized < group["1"].nchunks / 2
