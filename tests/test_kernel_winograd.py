"""Winograd's kernel: right against float64, and a pixel's bits follow from its cell's window alone."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compiled import winograd
from pipeline.geometry import Interval, Region, whole
from pipeline.given import Held, within
from pipeline.kernels import BACKENDS, choose, kernel_for
from pipeline.layers import LAYERS
from pipeline.operation import UNIT
from pipeline.stack import BoundStack, Stack, run_whole

KERNEL = BACKENDS["winograd"]


def convolution(depth, count, **params):
    rng = np.random.default_rng([depth, count])
    features = {f"f{i}": rng.standard_normal((depth, 3, 3)) for i in range(count)}
    layer = LAYERS["convolution"](type="convolution", features=tuple(features), **params)
    return layer.bind("match", tuple(map(str, range(depth))), features)


def other(kind, maps, **params):
    return LAYERS[kind](type=kind, **params).bind(kind, tuple(map(str, range(maps))), {})


def block_for(depth, height, width, seed=5):
    return np.random.default_rng(seed).standard_normal((depth, height + 2, width + 2), np.float32)


def run(block, *operations):
    with np.errstate(all="ignore"):
        return kernel_for(operations, "winograd")(block)


def exact(block, *operations):
    maps = block.astype(np.float64)
    with np.errstate(all="ignore"):
        for operation in operations:
            maps = operation.block(maps, operation)
    return maps


def assert_same_bits(one, other):
    nan = np.isnan(one)
    np.testing.assert_array_equal(nan, np.isnan(other))
    np.testing.assert_array_equal(one[~nan].view("u4"), other[~nan].view("u4"))


SHAPES = [(1, 1), (1, 2), (2, 1), (3, 5), (2, 200), (200, 2), (7, 31), (8, 32), (9, 33), (18, 36), (33, 66), (31, 97)]
"""Extents of outputs: cells cut by the end, rows shorter and longer than a vector of cells, strips ending anywhere."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("depth", "count"), [(1, 1), (3, 9), (17, 8), (16, 20)])
def test_sums_are_the_float64_ones_to_a_few_roundings(depth, count, shape):
    bias = tuple(np.linspace(-2, 2, count).tolist())
    for params in ({"match": "sum"}, {"match": "mean", "bias": bias}):
        operation = convolution(depth, count, **params)
        block = block_for(depth, *shape)
        before = block.copy()
        ours, reference = run(block, operation), exact(block, operation)
        assert ours.dtype == np.float32
        assert ours.shape == reference.shape == (count, *shape)
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-6 * np.abs(reference).max())
        np.testing.assert_array_equal(block, before)  # a kernel leaves its input alone


def test_more_channels_than_are_taken_at_a_time():
    operation = convolution(winograd.PART + 3, 3, match="sum")
    block = block_for(winograd.PART + 3, 12, 9)
    reference = exact(block, operation)
    np.testing.assert_allclose(run(block, operation), reference, rtol=0, atol=1e-6 * np.abs(reference).max())


def test_whole_numbers_stay_whole():
    rng = np.random.default_rng(3)
    features = {f"f{i}": rng.integers(-9, 10, (20, 3, 3)) for i in range(5)}
    layer = LAYERS["convolution"](type="convolution", features=tuple(features), match="sum")
    operation = layer.bind("match", tuple(map(str, range(20))), features)
    block = rng.integers(-99, 100, (20, 33, 40)).astype(np.float32)
    np.testing.assert_array_equal(run(block, operation), exact(block, operation))


def test_an_output_sees_its_own_pixels_alone():
    """What lies beside its 3 × 3 pixels, however large, is no part of its sums, not even as a rounding."""
    operation = convolution(2, 3, match="sum")
    block = block_for(2, 20, 20)
    marked = block.copy()
    marked[1, 9, 8] = 1e9
    before, after = run(block, operation), run(marked, operation)
    touched = np.zeros((20, 20), bool)
    touched[7:10, 6:9] = True
    assert (before != after)[:, touched].all()
    assert_same_bits(before[:, ~touched], after[:, ~touched])


@pytest.mark.parametrize("part", [np.s_[1:2, 1:2], np.s_[:1, 2:], np.s_[1:2], np.s_[:, 2:], np.s_[:]], ids=str)
def test_sums_are_no_further_off_than_the_kernel_says(part):
    rng = np.random.default_rng(1)
    weights = np.zeros((9, 4, 3, 3))
    weights[:, :, *(part if isinstance(part, tuple) else (part,))] = 1
    weights *= rng.standard_normal(weights.shape).astype(np.float32)
    features = dict(zip(map(str, range(9)), weights, strict=True))
    layer = LAYERS["convolution"](type="convolution", features=tuple(features), match="sum")
    operation = layer.bind("match", ("a", "b", "c", "d"), features)
    block = block_for(4, 60, 60)
    block[rng.random(block.shape) < 0.02] *= 1e4
    reference, even = exact(block, operation), np.zeros((60, 60), bool)
    doubt = KERNEL.doubted(operation).doubt(block.astype(float), np.zeros(block.shape), even, operation)
    assert (np.abs(run(block, operation) - reference) <= doubt + UNIT * np.abs(reference)).all()
    assert (doubt <= 1e-5 * np.abs(reference).max()).all()


def strange(block, seed):
    """Put NaN, infinities, zeros of both signs, and very large and small numbers into a block."""
    rng = np.random.default_rng(seed)
    numbers = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e30, -1e30, 1e-42], np.float32)
    where = rng.random(block.shape) < rng.choice([0.001, 0.02, 0.3])
    block[where] = rng.choice(numbers, int(where.sum()))
    return block


@pytest.mark.parametrize("seed", range(12))
def test_nan_and_infinity_are_where_a_direct_convolution_has_them(seed):
    operation = convolution(3, 9, match="sum", bias=0.5)
    block = strange(block_for(3, 21, 90, seed), seed)
    ours, direct = run(block, operation), kernel_for((operation,), "numba")(block)
    odd = ~(np.isfinite(ours) & np.isfinite(direct))
    assert odd.any()
    np.testing.assert_array_equal(ours[odd], direct[odd])
    np.testing.assert_allclose(ours[~odd], direct[~odd], rtol=0, atol=1e-6 * np.abs(direct[~odd]).max())


@pytest.mark.parametrize("width", [15, 31, 33, 47, 63])
def test_what_lies_beyond_a_row_decides_nothing_of_a_cell_that_the_end_cuts(width):
    """In memory the next row begins there; it is another pixel in a block that begins further on."""
    operation = convolution(3, 9, match="sum")
    block = block_for(3, 20, width)
    block[:, :, 0] = np.nan
    complete, part = run(block, operation), run(block[:, :, 2:], operation)
    assert_same_bits(part, complete[:, :, 2:])
    assert np.isfinite(part).all()


CHAINS = {
    "relu": (other("relu", 9),),
    "pool": (other("pool", 9),),
    "relu and pool": (other("relu", 9), other("pool", 9)),
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("chain", CHAINS)
def test_layers_in_one_pass_have_the_bits_of_one_after_another(chain, mean, seed):
    bias = tuple(np.linspace(-1, 1, 9).tolist()) if seed % 4 > 1 else 0.0
    first = convolution(4, 9, match="mean" if mean else "sum", bias=bias)
    operations = first, *CHAINS[chain]
    assert KERNEL.fuse(operations) == len(operations)
    block = block_for(4, 2 * (7 + seed), 2 * (15 + 9 * seed), seed)
    if seed % 2:
        block = strange(block, seed)
        block[:, 5:9] *= np.float32(1e-40)  # sums that round to −0
    single = run(block, first)
    with np.errstate(all="ignore"):
        for operation in operations[1:]:
            single = kernel_for((operation,), "numba")(single)
    assert_same_bits(run(block, *operations), single)


@pytest.mark.parametrize("shape", [(7, 9), (8, 9), (7, 40)])
def test_of_a_cell_that_the_end_cuts_no_greatest_is_written(shape):
    operations = convolution(4, 9, match="sum"), other("pool", 9, partial="drop")
    block = block_for(4, *shape)
    block[:, -1], block[:, :, -1] = np.nan, np.nan
    frame = np.full((9, shape[0] // 2 + 2, shape[1] // 2 + 2), np.float32(7))
    with np.errstate(all="ignore"):
        kernel_for(operations, "winograd")(block, frame[:, 1:-1, 1:-1])
    even = block[:, : shape[0] // 2 * 2 + 2, : shape[1] // 2 * 2 + 2]
    assert_same_bits(frame[:, 1:-1, 1:-1], run(even, *operations))
    frame[:, 1:-1, 1:-1] = 7
    assert (frame == 7).all()


def test_what_is_not_made_of_cells_stays_outside():
    first = convolution(4, 9)
    pools = ({"window": 3}, {"op": "min"}, {"op": "mean"}, {"stride": 1}, {"window": (2, 3)}, {"stride": (2, 4)})
    for params in pools:
        assert KERNEL.fuse((first, other("relu", 9), other("pool", 9, **params))) == 2
    assert KERNEL.fuse((first, other("abs", 9))) == 1
    assert KERNEL.fuse((first, other("pool", 9), other("relu", 9))) == 2
    assert KERNEL.fuse((first,)) == 1


def test_other_convolutions_have_no_kernel():
    for params in ({"stride": 2}, {"dilation": (1, 2)}, {"match": "ncc"}):
        assert not KERNEL.supports(convolution(16, 16, **params))
    assert not KERNEL.supports(other("relu", 16))
    features = {"f": np.ones((3, 3))}
    each = LAYERS["convolution"](type="convolution", features=("f",), channels="each")
    assert not KERNEL.supports(each.bind("match", ("a", "b"), features))
    assert KERNEL.supports(each.bind("match", ("a",), features))
    vast = LAYERS["convolution"](type="convolution", features=("f",))
    assert not KERNEL.supports(vast.bind("match", ("a", "b"), {"f": np.full((3, 3), 1e30)}))


def stack_of(layers, channels):
    """A stack of layers, where a number stands for a convolution with so many features."""
    made, features, rng = [], {}, np.random.default_rng(len(layers))
    maps = channels
    for place, layer in enumerate(layers):
        if isinstance(layer, int):
            names = tuple(f"f{place}_{n}" for n in range(layer))
            features |= {name: rng.standard_normal((maps, 3, 3)) / 3 for name in names}
            maps = layer
            padding = {"padding": "same", "boundary": ("constant", "reflect", "nearest")[place % 3]}
            more = padding if rng.random() < 0.6 else {}
            made.append(LAYERS["convolution"](type="convolution", features=names, match="sum", **more))
        else:
            made.append(LAYERS[layer](type=layer))
    return Stack(tuple(made), features)


stacks = st.lists(st.sampled_from([[5], [3, "relu"], [4, "relu", "pool"], [3, "pool"]]), min_size=1, max_size=3).map(
    lambda parts: [layer for part in parts for layer in part]
)


@settings(max_examples=150, deadline=None)
@given(stacks, st.data())
def test_any_region_of_a_stack_has_the_bits_of_the_whole(layers, data):
    operations = stack_of(layers, 2).bind(("a", "b")).operations
    forced = ["winograd" if o.kind == "convolution" else None for o in operations]
    bound = BoundStack(operations, tuple(map(choose, operations, forced)))
    assert {"winograd"} <= {choice.backend for choice in bound.choices}
    shape = data.draw(st.tuples(st.integers(30, 90), st.integers(30, 90)))
    image = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((2, *shape), np.float32)
    if data.draw(st.booleans()):
        image = strange(image, 1)
    last = len(layers) - 1
    complete = run_whole(bound, image, last)
    extents = bound.extents(shape)
    wanted: Region = tuple(
        Interval(*sorted((a, b + 1)))
        for a, b in (sorted(data.draw(st.tuples(*[st.integers(0, n - 1)] * 2))) for n in extents[-1])
    )
    walk = bound.walk({last: wanted}, extents)
    part = bound.run(Held(image, whole(shape)), walk, {last: wanted}, extents)[last]
    assert_same_bits(part, within(complete, wanted, whole(extents[-1])))
    if np.isfinite(image).all():
        plain = run_whole(BoundStack(operations, tuple(choose(o, "numpy") for o in operations)), image, last)
        np.testing.assert_allclose(complete, plain, rtol=0, atol=1e-5 * np.abs(plain).max())


def test_a_stack_whose_doubt_was_asked_for_still_travels_to_workers():
    bound = stack_of([16, "relu"], 2).bind(("a", "b"), "winograd")
    assert [o.doubt for o in bound.doubted] != [o.doubt for o in bound.operations]
    assert pickle.loads(pickle.dumps(bound)) == bound  # noqa: S301 - our own
