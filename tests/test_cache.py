"""The cache of decoded chunks: the right pixels whatever was read before, within its bound, from any thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.geometry import Interval, Region, intersect
from pipeline.given import within
from pipeline.storage.cache import ChunkCache, Chunked
from pipeline.storage.images import open_image

PIXELS = np.random.default_rng(3).integers(0, 2**16, (2, 61, 47)).astype(np.uint16)
CHUNKED = Chunked(("image", 0), (61, 47), (16, 16))
CHUNK = 16 * 16 * 2 * 2

STORES = {
    "a chunk a channel": {"chunks": (1, 16, 16)},
    "channels in chunks": {"chunks": (2, 16, 16)},
    "v2": {"chunks": (1, 16, 16), "zarr_format": 2},
    "shards": {"chunks": (1, 16, 16), "shards": (2, 32, 32)},
}


def part(region: Region) -> np.ndarray:
    return PIXELS[:, region[0].start : region[0].stop, region[1].start : region[1].stop]


def read(region: Region, *told, of=CHUNKED, **more) -> np.ndarray:
    """The pixels of a region, put together from its parts; every one of them lies in a part that was read."""
    parts = of.parts(region, *told, **more)
    made = np.full((len(parts[0][1]), *map(len, region)), -1, np.int64)
    for area, pixels in parts:
        common = intersect(area, region)
        within(made, common, region)[...] = within(pixels, common, area)
    return made


def many(region: Region, count: int = 2) -> tuple[list[int], list[int]]:
    """So many readers of each chunk."""
    rows, columns = CHUNKED.cover(region)
    return [count] * len(rows), [1] * len(columns)


@st.composite
def reads(draw: st.DrawFn) -> tuple[Region, tuple[list[int], list[int]]]:
    region = []
    for extent in CHUNKED.extents:
        start = draw(st.integers(0, extent - 1))
        region.append(Interval(start, draw(st.integers(start + 1, extent))))
    numbers = [
        draw(st.lists(st.integers(1, 3), min_size=len(i), max_size=len(i))) for i in CHUNKED.cover(tuple(region))
    ]
    return tuple(region), (numbers[0], numbers[1])


@given(st.integers(0, 8), st.lists(reads(), max_size=12), st.booleans())
def test_any_reads_give_the_image_within_the_bound(chunks, asked, singly):
    cache = ChunkCache(chunks * CHUNK)
    for region, readers in asked:
        got = read(region, readers, cache, part, singly=singly)
        np.testing.assert_array_equal(got, part(region))
        assert cache._size <= cache.limit
        assert cache._size == sum(pixels.nbytes for pixels in cache._held.values())
        assert cache._held.keys() == cache._readers.keys()
        assert not cache._coming


@pytest.mark.parametrize("store", STORES)
def test_every_store_gives_the_same_through_the_cache(tmp_path, store):
    named = dict(STORES[store])
    array = zarr.create_array(str(tmp_path / "image.zarr"), shape=PIXELS.shape, dtype="uint16", **named)
    array[:] = PIXELS
    source = open_image(str(tmp_path / "image.zarr"))
    cache = ChunkCache(5 * CHUNK)
    for y in range(0, 50, 11):
        for x in range(0, 40, 9):
            region = (Interval(y, y + 11), Interval(x, x + 7))
            np.testing.assert_array_equal(read(region, cache, many(region, 9), 0, slabs=False, of=source), part(region))
    nothing = (Interval(5, 5), Interval(0, 3))
    assert read(nothing, cache, ((), (1,)), 0, slabs=False, of=source).shape == (2, 0, 3)
    assert 0 < cache._size <= cache.limit


@pytest.mark.parametrize("compressors", ["auto", None])
def test_chunks_read_singly_are_whole_cut_and_missing_and_may_be_written_to(tmp_path, compressors):
    array = zarr.create_array(
        str(tmp_path / "image.zarr"),
        shape=(61, 47),
        chunks=(16, 16),
        dtype="uint16",
        compressors=compressors,
        fill_value=7,
    )
    pixels = PIXELS[0].copy()
    pixels[16:32, 32:] = 7
    array[:] = pixels
    source, cache = open_image(str(tmp_path / "image.zarr")), ChunkCache(50 * CHUNK)
    for region in (
        (Interval(16, 32), Interval(16, 32)),
        (Interval(0, 61), Interval(0, 47)),
        (Interval(16, 32), Interval(32, 47)),
    ):
        got = read(region, cache, many(region, 9), 0, slabs=False, of=source)
        np.testing.assert_array_equal(
            got[0], pixels[region[0].start : region[0].stop, region[1].start : region[1].stop]
        )
    assert all(held.flags.writeable for held in cache._held.values())
    assert all(held.base is None or held.base.nbytes == held.nbytes for held in cache._held.values())


def test_a_chunk_leaves_after_its_last_reader_and_the_oldest_where_there_is_no_room():
    asked = []

    def get(region: Region) -> np.ndarray:
        asked.append(region)
        return part(region)

    cache = ChunkCache(2 * CHUNK)
    one, two, three = ((Interval(0, 5), Interval(16 * n, 16 * n + 5)) for n in range(3))
    read(one, many(one), cache, get)
    read(one, many(one), cache, get)
    assert len(asked) == 1
    assert cache._size == 0  # two were to read it, and have
    read(one, many(one, 1), cache, get)
    assert asked[-1] == one  # nobody else reads it: no more than the region is taken out, and nothing is kept
    assert cache._size == 0
    for region in (one, two, one, three):
        read(region, many(region, 5), cache, get)
    assert {key[1:] for key in cache._held} == {(0, 0), (0, 2)}


def test_what_is_missing_is_read_in_rectangles():
    asked = []

    def get(region: Region) -> np.ndarray:
        asked.append(region)
        return part(region)

    cache = ChunkCache(100 * CHUNK)
    corner, whole = (Interval(0, 32), Interval(0, 20)), (Interval(0, 61), Interval(0, 47))
    read(corner, many(corner), cache, get)
    np.testing.assert_array_equal(read(whole, many(whole, 3), cache, get), PIXELS)
    assert asked == [
        (Interval(0, 32), Interval(0, 32)),
        (Interval(0, 32), Interval(32, 47)),
        (Interval(32, 61), Interval(0, 47)),
    ]


def test_threads_that_want_the_same_chunk_read_it_once():
    asked = []
    started, go = threading.Event(), threading.Event()

    def slow(region: Region) -> np.ndarray:
        asked.append(region)
        started.set()
        assert go.wait(10)
        return part(region)

    cache = ChunkCache(10 * CHUNK)
    region = (Interval(3, 14), Interval(2, 9))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read, region, many(region), cache, slow)
        assert started.wait(10)
        second = pool.submit(read, region, many(region), cache, slow)
        while not any(cache._readers[key] == 0 for key in cache._coming):
            assert not second.done()
        go.set()
        for future in (first, second):
            np.testing.assert_array_equal(future.result(10), part(region))
    assert len(asked) == 1
    assert cache._size == 0


def test_a_read_that_fails_leaves_the_one_who_waits_to_try_itself():
    started, go = threading.Event(), threading.Event()

    def failing(region: Region) -> np.ndarray:
        started.set()
        assert go.wait(10)
        raise OSError("passing")

    cache = ChunkCache(10 * CHUNK)
    region = (Interval(3, 14), Interval(2, 9))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read, region, many(region, 3), cache, failing)
        assert started.wait(10)
        second = pool.submit(read, region, many(region, 3), cache, part)
        while not any(cache._readers[key] == 1 for key in cache._coming):
            assert not second.done()
        go.set()
        with pytest.raises(OSError, match="passing"):
            first.result(10)
        np.testing.assert_array_equal(second.result(10), part(region))
    assert cache._size == 0
    assert not cache._readers


def test_many_threads_get_the_right_pixels():
    cache = ChunkCache(6 * CHUNK)
    regions = [(Interval(y, y + 20), Interval(x, x + 18)) for y in range(0, 40, 5) for x in range(0, 28, 4)] * 4

    def check(region: Region) -> bool:
        return np.array_equal(read(region, many(region, 3), cache, part), part(region))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(check, regions))
    assert cache._size <= cache.limit


def test_an_error_names_the_path_and_the_region(tmp_path):
    path = tmp_path / "image.zarr"
    zarr.create_array(str(path), data=PIXELS, chunks=(1, 16, 16))
    (path / "c/1/0/1").write_bytes(b"not a chunk")
    region = (Interval(3, 14), Interval(2, 29))
    source, cache = open_image(str(path)), ChunkCache(10 * CHUNK)
    for _ in range(2):
        with pytest.raises(InputError, match=r"image\.zarr: y \[3, 14\), x \[2, 29\) cannot be read"):
            source.parts(region, cache, many(region), 0, slabs=False)
    assert not cache._coming
