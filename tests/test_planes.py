"""Planes over t and z: each is run as an image of its own, in every order of the axes, and lies where it lay."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.execute import serial
from pipeline.execute.feed import Feed
from pipeline.execute.task import Done
from pipeline.grid import BlockGrid
from pipeline.storage import chunkfiles, output
from pipeline.storage.images import open_image
from pipeline.storage.records import Segments
from pipeline.storage.stored import list_chunks

LAYERS: list[dict[str, Any]] = [
    {"type": "convolution", "name": "match", "features": "edge", "padding": "same", "boundary": "reflect"},
    {"type": "pool", "window": 3, "stride": 2},
]
EXTENTS = {"t": 3, "c": 2, "z": 4, "y": 33, "x": 29}
CHUNKS = {"t": 1, "c": 1, "z": 1, "y": 8, "x": 10}


def pixels(axes: str) -> np.ndarray:
    """Random pixels of the axes, in this order."""
    shape = [EXTENTS[axis] for axis in axes]
    return np.random.default_rng(len(axes)).integers(0, 256, shape).astype(np.uint8)


def store(axes: str, path: Path, values: np.ndarray, **given: Any) -> Any:
    sizes = given.pop("chunks", CHUNKS)
    chunks = tuple(sizes[axis] for axis in axes)
    names = given.pop("dimension_names", tuple(axes))
    array = zarr.create_array(
        str(path), shape=values.shape, chunks=chunks, dtype=values.dtype, dimension_names=names, **given
    )
    array[...] = values
    return array


def load(folder: Path, layers: list[dict[str, Any]] = LAYERS, **given: Any) -> pipeline.Job:
    return pipeline.load(
        {
            "input": {"images": str(folder / "i.zarr"), **given.pop("input", {})},
            "features": {"edge": {"rows": [[-1, 2, 0], [3, 4, -5]]}},
            "layers": layers,
            "output": {"store": str(folder / "o.zarr"), "chunks": 4, **given},
        }
    )


def cut(plan: pipeline.Plan, step: int) -> pipeline.Plan:
    """Return the plan with small blocks, so that a plane has several, and chunks kept between them."""
    (one,) = plan.images
    grid, cache = replace(one.reading, grid=BlockGrid(one.grid.maps, (step, step))).fitted(10**8)
    return replace(plan, images=(replace(one, grid=grid, cache=cache),))


def to_tzcyx(axes: str, values: np.ndarray) -> np.ndarray:
    """Return all planes with an axis for each of t, z, c, y and x."""
    order = [axes.index(axis) for axis in "tzcyx" if axis in axes]
    return values.transpose(order).reshape([EXTENTS[axis] if axis in axes else 1 for axis in "tzcyx"])


def same(job: pipeline.Job, axes: str, values: np.ndarray, made: Any, layer: str) -> None:
    """Each plane of a stored map has the bits of the stack over that plane alone."""
    outer = [axis for axis in "tczyx" if axis in axes or axis == "c"]
    found = made[...].transpose([outer.index(axis) for axis in "tzcyx" if axis in outer])
    planes = to_tzcyx(axes, values)
    found = found.reshape(*planes.shape[:2], *found.shape[-3:])
    for t, z in np.ndindex(planes.shape[:2]):
        np.testing.assert_array_equal(found[t, z], job.stack(planes[t, z], layer=layer))


@pytest.mark.parametrize("axes", ["tczyx", "zyx", "tyx", "tcyx", "czyx", "xyzct", "yxzt", "zxyc", "ytx"])
def test_planes_are_run_in_every_order_of_the_axes(tmp_path: Path, axes: str) -> None:
    values = pixels(axes)
    store(axes, tmp_path / "i.zarr", values)
    job = load(tmp_path)
    plan = cut(pipeline.plan(job), 16)
    report = pipeline.run(plan, "serial")
    assert report.complete
    count = np.prod([EXTENTS[axis] for axis in axes if axis in "tz"])
    assert report.tasks == plan.tasks == count * len(plan.images[0].grid) > count
    assert report.pixels == count * EXTENTS["y"] * EXTENTS["x"]
    made = zarr.open_array(f"{tmp_path}/o.zarr/i/pool/0")
    names = tuple(axis for axis in "tczyx" if axis in axes or axis == "c")
    assert made.metadata.dimension_names == names
    assert all(made.chunks[names.index(axis)] == 1 for axis in "tcz" if axis in names)
    same(job, axes, values, made, "pool")
    assert pipeline.verify(job).passed


@pytest.mark.parametrize("cluster", ["serial", "threads"])
@pytest.mark.parametrize("given", [{}, {"shards": 8, "chunks": 4}, {"dtype": "int8", "range": [-9.0, 9.0]}], ids=str)
def test_chunks_of_several_planes_and_channels(tmp_path: Path, cluster: str, given: dict[str, Any]) -> None:
    values = pixels("tczyx")
    store("tczyx", tmp_path / "i.zarr", values, chunks={"t": 2, "c": 2, "z": 3, "y": 9, "x": 7})
    job = load(tmp_path, layers=LAYERS, **given)
    plan = cut(pipeline.plan(job), 16)
    assert pipeline.run(plan, cluster, workers=2).complete
    kept = plan.images[0].kept[0].array
    made = zarr.open_array(f"{tmp_path}/o.zarr/i/pool/0")[...]
    for t, z in np.ndindex(EXTENTS["t"], EXTENTS["z"]):
        expected = kept.encoding.encode(job.stack(values[t, :, z]))
        np.testing.assert_array_equal(made[t, :, z], expected)


@pytest.mark.parametrize("chunks", [CHUNKS, {"t": 1, "c": 2, "z": 3, "y": 9, "x": 7}], ids=["thin", "thick"])
def test_empty_planes_and_parts_of_planes_are_left_out(tmp_path: Path, chunks: dict[str, int]) -> None:
    array = store("tczyx", tmp_path / "i.zarr", np.zeros([EXTENTS[a] for a in "tczyx"], "u1"), chunks=chunks)
    array[1, 1, 2, 10:14, 20] = 9
    array[2, 0, 0, 0, 0] = 9
    job = load(tmp_path, [{"type": "convolution", "features": "edge"}, {"type": "pool", "partial": "drop"}])
    plan = pipeline.plan(job)
    (image,) = plan.images
    assert 0 < len(image.blocks) < image.count / 2
    assert {image.at(number)[0] for number in image.blocks} == ({6, 8} if chunks == CHUNKS else {4, 5, 6, 8, 9, 10})
    assert f"{image.count - len(image.blocks)} more blocks see only the fill value" in str(plan)
    assert pipeline.run(plan, "serial").complete
    same(job, "tczyx", array[...], zarr.open_array(f"{tmp_path}/o.zarr/i/pool/0"), "pool")
    found = list_chunks(open_image(str(tmp_path / "i.zarr"))).stored
    assert found is not None
    assert len(found) == (2 if chunks == CHUNKS else 6)


@pytest.mark.parametrize("given", [{"pyramid": "mean"}, {"pyramid": "max", "ome_zarr": "0.4"}], ids=str)
def test_each_plane_has_its_pyramid(tmp_path: Path, given: dict[str, Any]) -> None:
    values = pixels("tczyx")
    store("tczyx", tmp_path / "i.zarr", values)
    for t in range(EXTENTS["t"]):
        store("zcyx", tmp_path / f"{t}.zarr", values[t].swapaxes(0, 1))
    for name in ("i", "0", "1", "2"):
        images = {"input": {"images": str(tmp_path / f"{name}.zarr")}, "store": str(tmp_path / f"o{name}.zarr")}
        assert pipeline.run(pipeline.plan(load(tmp_path, **images, **given)), "serial").complete
    whole = zarr.open_group(f"{tmp_path}/oi.zarr/i/pool", mode="r")
    assert len(list(whole.array_keys())) > 2
    for level, array in whole.arrays():
        made = np.asarray(array)
        for t in range(EXTENTS["t"]):
            np.testing.assert_array_equal(made[t], zarr.open_array(f"{tmp_path}/o{t}.zarr/{t}/pool/{level}")[...])


def test_the_plan_tells_planes_and_a_failed_task_names_its_own(tmp_path: Path) -> None:
    store("tczyx", tmp_path / "i.zarr", pixels("tczyx"))
    job = load(tmp_path)
    plan = pipeline.plan(job)
    assert "input     t 3 × z 4 × 2 × 33 × 29 uint8" in str(plan)
    (image,) = plan.images
    assert image.bytes_read == 3 * 4 * 2 * 40 * 30
    assert image.bytes_written == 3 * 4 * 16 * 14 * 4
    (tmp_path / "i.zarr/c/1/1/2/0/0").write_bytes(b"damaged")
    report = pipeline.run(plan, "serial")
    (failure,) = report.failures
    assert failure["task"] == "6 at t 1, z 2, input pixel (0, 0)"
    assert "t 1, z 2, y [0, 33), x [0, 29) cannot be read" in failure["reason"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("s", "y", "x"), "has the axes s, y, x; expected y and x, and of t, c and z those there are"),
        (("y", "y", "x"), "has the axes y, y, x; expected"),
        (("a", "b", "c"), "has the axes a, b, c; expected y and x"),
        (("time", "lat", "lon"), "has the axes time, lat, lon; expected y and x, .*: rename them"),
        (("T", "Y", "X"), "has the axes T, Y, X; expected"),
        ((None, "x", "y"), "has the axes None, x, y; expected"),
        (("dim_0", "dim_1", "dim_2"), None),
    ],
)
def test_axes_of_other_names_are_refused(tmp_path: Path, names: tuple[str | None, ...], words: str | None) -> None:
    store("tyx", tmp_path / "i.zarr", pixels("tyx"), dimension_names=names)
    if words is None:  # these xarray gives to axes that have none
        assert open_image(str(tmp_path / "i.zarr")).axes == ("c", "y", "x")
    else:
        with pytest.raises(pipeline.HaloflowError, match=words):
            open_image(str(tmp_path / "i.zarr"))


def test_four_axes_without_names_are_refused(tmp_path: Path) -> None:
    store("tzyx", tmp_path / "i.zarr", pixels("tzyx"), dimension_names=None)
    with pytest.raises(pipeline.HaloflowError, match=r"has 4 axes and no names of them; expected \(y, x\)"):
        open_image(str(tmp_path / "i.zarr"))


@pytest.mark.parametrize("thick", [1, 2, 3, 4])
@pytest.mark.parametrize("axes", ["zyx", "tczyx", "tyx"])
def test_chunks_of_several_planes_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str, thick: int
) -> None:
    last = "z" if "z" in axes else "t"
    values = pixels(axes)
    store(axes, tmp_path / "i.zarr", values, chunks={**CHUNKS, "y": 33, "x": 29, last: min(thick, EXTENTS[last])})
    sizes: list[int] = []
    whole = chunkfiles.get

    def get(path: str) -> bytes:
        found = whole(path)
        sizes.append(len(found) if "i.zarr" in (parts := Path(path).parts) and "c" in parts else 0)
        return found

    monkeypatch.setattr(chunkfiles, "get", get)
    job = load(tmp_path, chunks=64)
    plan = pipeline.plan(job)
    assert plan.images[0].slabs == (thick > 1)
    deep = min(thick, EXTENTS[last])  # the last chunk may hold planes beyond the image
    assert plan.images[0].bytes_read == values.nbytes * (-(-EXTENTS[last] // deep) * deep) // EXTENTS[last]
    assert pipeline.run(plan, "serial").complete
    stored = sum(f.stat().st_size for f in (tmp_path / "i.zarr" / "c").rglob("*") if f.is_file())
    assert sum(sizes) == stored
    same(job, axes, values, zarr.open_array(tmp_path / "o.zarr/i/pool/0", mode="r"), "pool")


def test_slabs_begin_where_chunks_do_and_take_what_memory_allows(tmp_path: Path) -> None:
    store("zyx", tmp_path / "i.zarr", pixels("zyx"), chunks={**CHUNKS, "z": 3})
    job = load(tmp_path, input={"z": [1, 4]})
    plan = cut(pipeline.plan(job), 8)
    image = replace(plan.images[0], slabs=True)
    count = len(image.grid)
    assert count > 1
    planes = [n // count for n in image.blocks]
    assert sorted(image.blocks) == list(range(3 * count))
    assert planes == [0, 1] * count + [2] * count  # planes 1 and 2 lie in the first chunk, 3 in the second
    assert image.in_order(range(3 * count)) == tuple(image.blocks) == tuple(image.blocks[:])
    for outcome in serial.run(Feed.of(made_in(replace(plan, images=(image,))).images), Segments(image.store, "", 1)):
        assert isinstance(outcome, Done), outcome
    made = zarr.open_array(tmp_path / "o.zarr/i/pool/0")[:]
    for z in range(3):
        np.testing.assert_array_equal(made[:, z], job.stack(pixels("zyx")[1 + z]))


def made_in(plan: pipeline.Plan) -> pipeline.Plan:
    """Make the empty store of a plan."""
    output.create(plan.store, {})
    output.add(plan.store, [kept.array for kept in plan.images[0].kept])
    return plan
