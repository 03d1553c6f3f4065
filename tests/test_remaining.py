"""What a run that goes on finds left to do: held against sets of write units, and how much memory it takes."""

import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline.execute.remaining import due, remaining
from pipeline.geometry import is_empty
from pipeline.grid import BlockGrid, MapGrid
from pipeline.planning import ImagePlan
from pipeline.storage import recorded
from pipeline.storage.place import Place
from pipeline.storage.records import FOLDER, Segments, Units
from pipeline.storage.source import place_of
from pipeline.storage.windows import Sight, Sights

Task = list[Units]

OUTER = {"yx": (), "zyx": (3,), "tzyx": (2, 3)}
"""The axes of the images, and the planes along the outer ones; a chunk holds two planes of z."""

MOST = 150
"""Bytes for each record, of which a million are to take 150 MB."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImagePlan]:
    """A plan that makes two maps of an image of each kind of axes."""
    folder, plans = tmp_path_factory.mktemp("images"), {}
    for axes, planes in OUTER.items():
        path, chunks = folder / f"{axes}.zarr", {"t": 1, "z": 2, "y": 16, "x": 16}
        shape, sizes = (*planes, 30, 30), tuple(chunks[axis] for axis in axes)
        zarr.create_array(path, shape=shape, chunks=sizes, dtype="uint8", dimension_names=tuple(axes))
        job = pipeline.load(
            {
                "input": {"images": str(path)},
                "features": {"edge": {"rows": [[-1, 2], [3, 4]]}, "bar": {"rows": [[1, 2], [2, 1]]}},
                "layers": [
                    {"type": "convolution", "name": "match", "features": ["edge", "bar"]},
                    {"type": "pool", "window": 2, "stride": 2},
                ],
                "output": {"store": str(folder / "maps.zarr"), "layers": ["match", "pool"], "chunks": 8},
            }
        )
        plans[axes] = replace(pipeline.plan(job).images[0], seeing=None)
    return plans


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def plans(draw: st.DrawFn, images: dict[str, ImagePlan]) -> ImagePlan:
    """Blocks and write units of any sizes, and maps of any strides: nothing is made, so that none must be possible."""
    image = images[draw(st.sampled_from(sorted(images)))]
    maps = tuple(
        MapGrid(draw(pairs(1, 20)), draw(pairs(1, 6)), draw(pairs(1, 3))) for _ in range(draw(st.integers(1, 2)))
    )
    made = tuple(
        replace(kept, array=replace(kept.array, extents=m.extents, chunks=m.units))
        for kept, m in zip(image.made, maps, strict=False)
    )
    slabs = bool(image.source.outer) and draw(st.booleans())
    grid = BlockGrid(maps, draw(pairs(3, 20)), 0 if slabs else draw(st.integers(0, 3)))
    image = replace(image, made=made, grid=grid, slabs=slabs)
    if draw(st.booleans()):
        return image
    seen = draw(st.sets(st.integers(0, image.count - 1), max_size=20))
    return replace(image, seeing=image.in_order(sorted(seen)))


def sights(channels: int) -> st.SearchStrategy[Sight | None]:
    made = st.builds(
        lambda low, high, pixels: Sight(low, high, np.full((channels, pixels), high, np.float32)),
        st.sampled_from([-2.0, -1.0, float("inf")]),
        st.sampled_from([1.0, 3.0, float("-inf")]),
        st.integers(0, 2),
    )
    return st.none() | made


def units(draw: st.DrawFn, array: Any, first: tuple[int, ...], counts: tuple[int, ...]) -> Units:
    return Units(f"{array.group}/0", first, counts, (), (), draw(sights(len(array.channels))), found=b"")


def of_block(draw: st.DrawFn, image: ImagePlan, block: int) -> Task:
    """What a task that makes a block records."""
    plane, index = image.at(block)
    parts = zip(image.made, image.grid.regions(index), strict=True)
    return [units(draw, kept.array, *kept.array.box(r, plane)) for kept, r in parts if not is_empty(r)]


def freely(draw: st.DrawFn, image: ImagePlan) -> Task:
    """A record of a box anywhere on a map, over several planes, too, or beyond its end, as of a larger image."""
    array = draw(st.sampled_from(image.made)).array
    inner, outer = array.levels[0].counts, [axis.extent for axis in array.outer]
    first = array.full(0, [draw(st.integers(0, n)) for n in inner], [draw(st.integers(0, n)) for n in outer])
    counts = array.full(2, [draw(st.integers(1, n)) for n in inner], [draw(st.integers(1, n)) for n in outer])
    return [units(draw, array, first, counts)]


@st.composite
def tasks(draw: st.DrawFn, image: ImagePlan) -> list[Task]:
    """Tasks of this run's blocks, of blocks of other sizes, of any boxes, of levels, and some that were done again."""
    made: list[Task] = []
    other = replace(image, grid=replace(image.grid, step=draw(pairs(3, 20)), band=0))
    for one in draw(st.lists(st.sampled_from([image, other]), max_size=2)):
        missing = draw(st.sets(st.integers(0, one.count - 1), max_size=3))
        made += [of_block(draw, one, block) for block in range(min(one.count, 60)) if block not in missing]
    made += [freely(draw, image) for _ in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        made.append([Units(f"{image.made[0].array.group}/1", (0, 0, 0), (1, 1, 1), (4,), (7,))])
    made = [task for task in draw(st.permutations(made)) if task]
    again = draw(st.lists(st.sampled_from(made), max_size=2)) if made else []
    return [*made, *([replace(u, sight=draw(sights(2))) for u in task] for task in again)]


def written(folder: Path, made: list[Task], segments: int = 2) -> recorded.Records:
    """Records of tasks as they are read again, from several segments."""
    (folder / FOLDER).mkdir(parents=True)
    store, size = Place.of(str(folder)), -(-len(made) // segments)
    for number in range(segments):
        segment = Segments(store, "plan", number + 1).begin()
        for task in made[number * size : (number + 1) * size]:
            segment.append(task)
        segment.close()
    return recorded.read(store, "plan")


def in_block(image: ImagePlan, block: int) -> Iterator[tuple[Any, ...]]:
    """The write units that a block makes."""
    plane, index = image.at(block)
    for kept, region in zip(image.made, image.grid.regions(index), strict=True):
        for y, x in product(*(range(len(axis)) for axis in region)):
            place = ((region[0].start + y) // kept.array.unit[0], (region[1].start + x) // kept.array.unit[1])
            yield (f"{kept.array.group}/0", *place_of(plane, image.source.outer), *place)


def in_task(image: ImagePlan, task: Task) -> Iterator[tuple[Any, ...]]:
    """The write units that a task's records are of, those of all channels."""
    arrays = {f"{kept.array.group}/0": kept.array for kept in image.made}
    for one in task:
        if one.array in arrays:
            ranges = [range(box.start, box.stop) for box in one.box]
            order = sorted(range(len(ranges)), key=lambda axis: "tzyx".find(arrays[one.array].axes[axis]))
            for place in product(*(ranges[axis] for axis in order)):
                yield (one.array, *place[1:])  # the channels come first: they are none of these


def expected(image: ImagePlan, made: list[Task]) -> tuple[list[int], list[Task]]:
    """The blocks that are left, and the tasks that stay: with sets of write units, one after another."""
    blocks = {block: {*in_block(image, block)} for block in image.blocks}
    good = [({*in_task(image, t)}, t) for t in {(t[0].array, t[0].first, t[0].counts): t for t in made}.values()]
    while good:
        done = set().union(*(mine for mine, _ in good))
        left = [block for block in image.blocks if blocks[block] - done]
        again = set().union(*(blocks[block] for block in left))
        stay = [(mine, task) for mine, task in good if not mine & again]
        if len(stay) == len(good):
            return left, [task for _, task in good]
        good = stay
    return list(image.blocks), []


@given(st.data())
def test_what_is_left_is_what_sets_of_write_units_leave(images: dict[str, ImagePlan], data: st.DataObject) -> None:
    image = data.draw(plans(images))
    made = data.draw(tasks(image))
    folder = Path(tempfile.mkdtemp())
    try:
        found, seen = written(folder, made), Sights()
    finally:
        shutil.rmtree(folder)
    left, stay = expected(image, made)
    assert list(remaining(image, found, seen)) == left
    assert image.source.name not in found.images
    told, arrays = Sights(), {f"{kept.array.group}/0": kept.array for kept in image.made}
    for one in (u for task in stay for u in task):
        if one.sight and one.array in arrays:
            told.add(arrays[one.array], one.sight)
    assert [seen.windows(m) for m in arrays.values()] == [told.windows(m) for m in arrays.values()]


@given(st.data())
def test_the_units_that_are_due_are_those_of_the_blocks(images: dict[str, ImagePlan], data: st.DataObject) -> None:
    image = data.draw(plans(images))
    listed = {
        (f"{kept.array.group}/0", *place)
        for kept, bitmap in zip(image.made, due(image), strict=True)
        for place in np.argwhere(bitmap).tolist()
    }
    assert listed == {place for block in image.blocks for place in in_block(image, block)}


def test_records_stay_cheap(images: dict[str, ImagePlan], tmp_path: Path) -> None:
    """Twenty thousand tasks of 128 write units each: their sizes and checksums are not held."""
    m = MapGrid((640, 2000), (1, 1), (1, 1))
    (kept, *_) = images["yx"].made
    made = (replace(kept, array=replace(kept.array, extents=m.extents, chunks=m.units)),)
    image = replace(images["yx"], made=made, grid=BlockGrid((m,), (8, 8)))
    sight = Sight(0.0, 1.0, np.empty((2, 0), np.float32))
    (tmp_path / FOLDER).mkdir(parents=True)
    segment = Segments(Place.of(str(tmp_path)), "plan", 1).begin()
    for block in range(100, image.count):
        plane, index = image.at(block)
        first, counts = made[0].array.box(image.grid.regions(index)[0], plane)
        segment.append([Units(f"{made[0].array.group}/0", first, counts, (9,) * 128, (7,) * 128, sight)])
    segment.close()
    tracemalloc.start()
    try:
        left = remaining(image, recorded.read(Place.of(str(tmp_path)), "plan"), Sights())
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(left) == list(range(100))
    bitmap = 640 * 2000
    assert peak <= bitmap + MOST * image.count
    assert held <= 10**5
