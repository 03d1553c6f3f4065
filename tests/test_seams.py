"""Seams: a Zarr run, a lazy Dask graph and the whole image give the same bits, whatever the chunks, tasks and tiles."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.errors import StackError
from pipeline.execute import serial
from pipeline.execute.feed import Feed
from pipeline.execute.task import Done
from pipeline.forecast import Group, Work
from pipeline.grid import BlockGrid
from pipeline.kernels import BACKENDS
from pipeline.layers import LAYERS
from pipeline.storage import output
from pipeline.storage.place import Place
from pipeline.storage.records import Segments
from tests import oracle
from tests.examples import EXAMPLES as EXAMPLES_OF

EXAMPLES = 500
MAX_CHUNKS = 150


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # On memory where there is some: a thousand small stores are made.
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    path = Path(tempfile.mkdtemp(prefix="haloflow-seams-", dir=base))
    yield path
    shutil.rmtree(path)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw: st.DrawFn, place: int, channels: int, features: dict[str, Any]) -> dict[str, Any]:
    usual = draw(st.booleans())  # what most stacks have, and the only one that some kernels have
    height, width = (3, 3) if usual else (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    each = draw(st.booleans())
    names = [f"f{place}_{n}" for n in range(draw(st.integers(1, 3)))]
    for name in names:
        depth = draw(st.sampled_from([None, 1 if each else channels]))
        shape = (height, width) if depth is None else (depth, height, width)
        # All values distinct and without symmetry, so that a flip or a swap of axes shows.
        values = np.random.default_rng(draw(st.integers(0, 2**16))).permutation(int(np.prod(shape))) + 1.0
        features[name] = {"rows": (values * np.where(values % 3, 1, -1)).reshape(shape).tolist()}
    layer: dict[str, Any] = {
        "type": "convolution",
        "features": names,
        "match": draw(st.sampled_from(["mean", "sum", *["ncc"] * (height * width > 1)])),  # one pixel is flat
        "channels": "each" if each else "all",
        "stride": (1, 1) if usual else draw(pairs),
        "dilation": (1, 1) if usual else draw(pairs),
        "bias": draw(st.sampled_from([0.0, 0.25])),
    }
    if draw(st.booleans()):
        layer |= {"padding": "same", "boundary": draw(st.sampled_from(["constant", "reflect", "nearest"]))}
        if layer["boundary"] == "constant":
            layer["fill"] = draw(st.sampled_from([0.0, -1.5]))
    return layer


@st.composite
def layers_of(draw: st.DrawFn, place: int, channels: int, features: dict[str, Any]) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(["convolution", "pool"]) | st.sampled_from([kind for kind in LAYERS if kind != "global_pool"])
    )
    if kind == "convolution":
        return draw(convolutions(place, channels, features))
    if kind == "pool":
        return {
            "type": "pool",
            "op": draw(st.sampled_from(["max", "mean", "min"])),
            "window": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
            "stride": draw(pairs),
            "partial": draw(st.sampled_from(["keep", "drop"])),
        }
    if kind == "normalise":
        return {"type": kind, "scale": 0.75, "offset": -0.5}
    if kind == "vote":
        weights = st.tuples(*[st.sampled_from([-2.0, 0.3, 1.0])] * channels)
        return {"type": kind, "weights": {name: draw(weights) for name in ("X", "O")}, "bias": {"X": 0.5, "O": -1.0}}
    # Any other layer of the registry, as its examples have it.
    return {"type": kind, **draw(st.sampled_from(EXAMPLES_OF[kind]))}


@st.composite
def partitions(draw: st.DrawFn, extent: int) -> tuple[int, ...]:
    cuts = sorted(draw(st.sets(st.integers(1, extent - 1), max_size=6))) if extent > 1 else []
    return tuple(int(n) for n in np.diff([0, *cuts, extent]))


@st.composite
def groupings(draw: st.DrawFn, layers: int, work: Work) -> tuple[Group, ...]:
    """Cut the layers into groups anywhere, each with tiles of its own."""
    cuts = [0, *(n for n in range(1, layers) if draw(st.booleans())), layers]
    tiles = st.tuples(st.integers(5, 90), st.integers(5, 90))
    return tuple(Group(first, end, draw(tiles), work) for first, end in pairwise(cuts))


def regular(draw: st.DrawFn, extents: tuple[int, ...]) -> list[int]:
    """Draw chunk edges: one pixel, primes, larger than the image; not so many chunks that the file system is tested."""
    chunks = [draw(st.one_of(st.integers(1, 13), st.integers(1, n + 9))) for n in extents]
    while np.prod([-(-n // c) for n, c in zip(extents, chunks, strict=True)]) > MAX_CHUNKS:
        chunks = [2 * c + 1 for c in chunks]
    return chunks


@st.composite
def jobs(draw: st.DrawFn) -> tuple[dict[str, Any], np.ndarray, list[int]]:
    extents = draw(st.one_of(st.tuples(*[st.integers(1, 30)] * 2), st.tuples(*[st.integers(1, 200)] * 2)))
    channels = draw(st.integers(1, 3))
    features: dict[str, Any] = {}
    layers: list[dict[str, Any]] = []
    maps = channels
    for place in range(draw(st.integers(1, 4))):
        layers.append(draw(layers_of(place, maps, features)))
        if layers[-1]["type"] == "convolution":
            count = len(layers[-1]["features"])
            maps = count * maps if layers[-1]["channels"] == "each" else count
        elif layers[-1]["type"] == "vote":
            maps = len(layers[-1]["weights"])
    assume(maps <= 12)
    dtype = draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "bool"]))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    if dtype == "float32":
        image = noise.normal(size=(channels, *extents)).astype("f4")
        odd = draw(st.sampled_from([0.0, 0.0, 0.02]))  # NaNs of either sign, infinities, and -0
        where = noise.random(image.shape) < odd
        image[where] = noise.choice(np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0], "f4"), int(where.sum()))
    elif dtype == "bool":
        image = noise.random((channels, *extents)) < 0.5
    else:
        info = np.iinfo(dtype)
        image = noise.integers(info.min, info.max + 1, (channels, *extents)).astype(dtype)
    config = {
        "input": {"images": "image.zarr"},
        "features": features,
        "layers": layers,
        "output": {"store": "maps.zarr"},
    }
    return config, image, regular(draw, extents)


@dataclass(frozen=True)
class Laid:
    """How an image lies in its store: the axis of its two planes, if it has them, and the chunks of its shards."""

    axis: str | None
    thick: int
    """Planes in a chunk."""
    shards: tuple[int, int] | None

    @property
    def axes(self) -> tuple[str, ...]:
        return {None: ("c", "y", "x"), "z": ("c", "z", "y", "x"), "t": ("t", "c", "y", "x")}[self.axis]

    def store(self, path: str, planes: list[np.ndarray], chunks: list[int]) -> None:
        at = self.axes.index(self.axis) if self.axis else None
        values = planes[0] if at is None else np.stack(planes, at)
        sizes = {"c": len(planes[0]), self.axis: self.thick, "y": chunks[0], "x": chunks[1]}
        group = dict(zip("yx", self.shards or (1, 1), strict=True))
        shards = tuple(sizes[a] * group.get(a, 1) for a in self.axes) if self.shards else None
        zarr.create_array(
            path,
            shape=values.shape,
            chunks=tuple(sizes[a] for a in self.axes),
            shards=shards,
            dtype=values.dtype,
            dimension_names=self.axes,
        )[:] = values


# Few, for they take their time: several objects in one, and two planes in place of one.
few = st.sampled_from([None] * 7 + [(1, 2), (3, 2)])
lays = st.builds(Laid, st.sampled_from([None] * 10 + ["z", "t"]), st.integers(1, 2), few)


def bits(maps: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(maps).view(f"u{maps.itemsize}")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(made=jobs(), laid=lays, data=st.data(), kernel=st.sampled_from([None, *BACKENDS]))
def test_zarr_dask_and_whole_image_agree_to_the_bit(
    folder: Path,
    made: tuple[dict[str, Any], np.ndarray, list[int]],
    laid: Laid,
    data: st.DataObject,
    kernel: str | None,
) -> None:
    config, image, chunks = made
    here = Path(tempfile.mkdtemp(dir=folder))
    source, target = str(here / "image.zarr"), str(here / "maps.zarr")
    config["input"]["images"], config["output"]["store"] = source, target
    planes = [image, image[:, ::-1, ::-1]] if laid.axis else [image]
    laid.store(source, planes, chunks)
    job = pipeline.load(config)
    try:
        whole = job.stack(image, kernel=kernel)
    except StackError:
        assume(False)
    config["output"]["chunks"] = regular(data.draw, whole.shape[1:])
    if grouped := data.draw(few, "shards"):
        config["output"]["shards"] = [c * n for c, n in zip(config["output"]["chunks"], grouped, strict=True)]
    kept = [name for name in job.stack.names if data.draw(st.booleans(), "kept")]
    dtype = data.draw(st.sampled_from(["float32"] * 3 + ["float16", "int8", "uint16"]), "stored as")
    config["output"] |= {"layers": kept or [job.stack.names[-1]], "dtype": dtype}
    job = pipeline.load(config)

    # The planner would make one task, and one group of layers, of most of these: cut them at random too.
    plan = pipeline.plan(job, kernel=kernel)
    planned = plan.images[0]
    base, strides = planned.grid.maps[-1].units, planned.grid.maps[-1].strides
    times = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)), "task units")
    step = tuple(u * s * t for u, s, t in zip(base, strides, times, strict=True))
    if data.draw(st.booleans(), "cut"):
        groups = data.draw(groupings(len(planned.stack.operations), planned.task.groups[0].work), "groups")
        grid = BlockGrid(planned.grid.maps, step)
        # Which blocks see anything was said of the planner's own.
        planned = replace(planned, grid=grid, seeing=None, task=replace(planned.task, groups=groups))
    plan = replace(plan, images=(planned,))
    output.create(target, {})
    output.add(target, [kept.array for kept in planned.kept])
    for outcome in serial.run(Feed.of(plan.images), Segments(Place.of(target), "", 1)):
        assert isinstance(outcome, Done), outcome
    for array in (k.array for k in planned.kept):
        run = zarr.open_array(f"{target}/image/{array.layer}/0")[:]
        expected = [array.encoding.encode(job.stack(p, layer=array.layer, kernel=kernel)) for p in planes]
        expected = np.stack(expected, laid.axes.index(laid.axis)) if laid.axis else expected[0]
        assert (run.dtype, run.shape) == (array.encoding.dtype, expected.shape)
        assert np.array_equal(bits(run), bits(expected)), array.layer

    split = (tuple([1] * len(image)), *(data.draw(partitions(n)) for n in image.shape[1:]))
    lazy = job.stack(da.from_array(image, chunks=split), kernel=kernel)
    assert lazy.shape == whole.shape
    assert lazy.dtype == np.float32
    with dask.config.set(scheduler="synchronous"):
        assert np.array_equal(bits(lazy.compute()), bits(whole))
    shutil.rmtree(here)

    if not np.isfinite(image).all() or not all(oracle.knows(layer) for layer in config["layers"]):
        return  # the bits agree; SciPy's sums of NaN are not ours to judge by
    exact = job.scale(str(image.dtype)).exact(image)
    arrays = {name: np.array(spec["rows"]) for name, spec in config["features"].items()}
    expected, magnitude = oracle.run(exact, config["layers"], arrays)
    assert whole.shape == expected.shape
    # A sum that cancels keeps the rounding of its terms: 2e-7 of them is three float32 roundings.
    allowed = 1e-5 * np.abs(expected).max() + 2e-7 * magnitude
    assert np.abs(whole - expected).max() <= allowed


@pytest.mark.parametrize("dtype", ["uint8", "int16", "bool"])
@pytest.mark.parametrize("blocks", ["uint8", "float64"])
def test_blocks_of_another_type_than_their_dask_array_says_are_taken_for_what_it_says(dtype: str, blocks: str) -> None:
    """Dask believes whoever makes an array."""
    image = np.random.default_rng(5).integers(0, 2, (1, 40, 60)).astype(dtype)
    job = pipeline.load(
        {"input": {"images": "i.zarr"}, "layers": [{"type": "pool"}], "output": {"store": "maps.zarr", "chunks": 16}}
    )
    lazy = da.from_array(image, chunks=(1, 16, 20)).map_blocks(lambda block: block.astype(blocks), dtype=dtype)
    with dask.config.set(scheduler="synchronous"):
        assert np.array_equal(bits(job.stack(lazy).compute()), bits(job.stack(image)))
