"""The FFT kernel: right against float64, and the bits of a pixel follow from the window of its cell alone."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import next_fast_len

from pipeline.geometry import Interval
from pipeline.kernels import fft
from pipeline.layers import LAYERS

KERNEL = fft.BACKEND


def convolution(size, depth=1, count=2, shape=np.asarray, **params):
    rng = np.random.default_rng([depth, count, *size])
    whole = size if params.get("channels") == "each" else (depth, *size)
    features = {f"f{i}": shape(rng.standard_normal(whole)) for i in range(count)}
    layer = LAYERS["convolution"](type="convolution", features=tuple(features), **params)
    return layer.bind("match", tuple(map(str, range(depth))), features)


def block_for(operation, made, offset=0.0, scale=1.0, seed=5):
    shape = [w.reach(Interval(0, n)).stop for w, n in zip(operation.windows, made, strict=True)]
    values = np.random.default_rng(seed).standard_normal((operation.inputs, *shape)) * scale + offset
    return values.astype(np.float32)


def run(operation, block):
    with np.errstate(all="ignore"):  # as the stack runs kernels
        return KERNEL.build((operation,))(block)


def exact(operation, block):
    with np.errstate(all="ignore"):
        return operation.block(block.astype(np.float64), operation)


def assert_same_bits(one, other):
    np.testing.assert_array_equal(np.ascontiguousarray(one).view("u4"), np.ascontiguousarray(other).view("u4"))


OPERATIONS = {
    "odd": convolution((31, 31)),
    "even, sum and bias": convolution((12, 17), match="sum", bias=(1.0, -2.0)),
    "one row": convolution((1, 63)),
    "one column": convolution((63, 1), count=1),
    "one pixel": convolution((1, 1)),
    "dilation": convolution((9, 4), dilation=(3, 5)),
    "strides": convolution((8, 9), stride=(2, 3), dilation=(1, 2), bias=0.5),
    "three maps": convolution((15, 16), depth=3, count=1),
    "each of three maps": convolution((9, 9), depth=3, channels="each", match="sum"),
}

SMALL = convolution((3, 5), depth=2, stride=(1, 2))
"""An operation whose reference is quick, for tests of many cells."""


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (-1.0, 1e-3), (60_000.0, 1.0), (0.0, 1e-30)])
@pytest.mark.parametrize("case", OPERATIONS)
def test_results_are_the_float64_ones_to_the_last_bits_of_a_float32(case, offset, scale):
    operation = OPERATIONS[case]
    made = tuple(min(cell + 9, 150) for cell in KERNEL.cell(operation))
    block = block_for(operation, made, offset, scale)
    before = block.copy()
    ours, reference = run(operation, block), exact(operation, block)
    assert ours.dtype == np.float32
    assert ours.shape == reference.shape == (len(operation.maps), *made)
    np.testing.assert_allclose(ours, reference, rtol=0, atol=2e-7 * np.abs(reference).max())
    np.testing.assert_array_equal(block, before)  # a kernel leaves its input alone


def test_a_dark_object_beside_a_bright_one_keeps_its_precision():
    block = block_for(SMALL, (90, 90))
    block[:, :, :60] += 1e6
    ours, reference = run(SMALL, block)[:, :, 31:], exact(SMALL, block)[:, :, 31:]
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-6)


def test_a_feature_larger_than_its_cell(monkeypatch):
    monkeypatch.setattr(fft, "_CELLS", (64,))
    monkeypatch.setattr(fft, "_frame", fft._frame.__wrapped__)
    operation = convolution((140, 70), count=1)
    assert KERNEL.cell(operation) == (64, 64)
    block = block_for(operation, (70, 130))
    reference = exact(operation, block)
    np.testing.assert_allclose(run(operation, block), reference, rtol=0, atol=2e-7 * np.abs(reference).max())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_rectangle_of_cells_has_the_bits_of_the_whole(data):
    case = data.draw(st.sampled_from(["strides", "each of three maps", "odd"]))
    operation = OPERATIONS[case]
    cell = KERNEL.cell(operation)
    made = [data.draw(st.integers(c + 1, 2 * c + c // 2)) for c in cell]  # the last cell is cut by the map's extent
    block = block_for(operation, made, seed=data.draw(st.integers(0, 99)))
    if data.draw(st.booleans()):
        block[0, block.shape[1] // 3, block.shape[2] // 2] = data.draw(st.sampled_from([np.nan, np.inf, 3e38]))
        block[:, : block.shape[1] // 2] = -1
    complete = run(operation, block)
    piece = []
    for extent, step in zip(made, cell, strict=True):
        first = data.draw(st.integers(0, (extent - 1) // step))
        last = data.draw(st.integers(first + 1, -(-extent // step)))
        piece.append(Interval(first * step, min(extent, last * step)))
    read = (
        slice(i.start * w.stride, (i.stop - 1) * w.stride + w.span)
        for i, w in zip(piece, operation.windows, strict=True)
    )
    part = run(operation, block[:, *read])
    kept = tuple(slice(i.start, i.stop) for i in piece)
    assert_same_bits(part, complete[:, *kept])


def shifted(values, offset):
    """The same values, ``offset`` bytes from a multiple of 64."""
    raw = np.empty(values.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    moved = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    moved[:] = values
    return moved


def test_bits_depend_neither_on_where_a_block_lies_in_memory_nor_on_its_order_nor_on_threads():
    operation = OPERATIONS["three maps"]
    block = block_for(operation, (140, 150))
    kernel = KERNEL.build((operation,))
    complete = kernel(block)
    for offset in (4, 8, 16, 28, 60):
        assert_same_bits(kernel(shifted(block, offset)), complete)
    assert_same_bits(kernel(np.asfortranarray(block)), complete)
    with ThreadPoolExecutor(4) as pool:
        for made in pool.map(kernel, [block] * 8):
            assert_same_bits(made, complete)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", ["dilation", "strides", "three maps", "each of three maps"])
def test_nan_and_infinity_stay_within_the_reach_of_the_feature(case, value):
    operation = OPERATIONS[case]
    made = (70, 77)
    block = block_for(operation, made)
    clean = exact(operation, block)
    height, width = block.shape[1:]
    for y, x in ((0, 0), (height // 2, width // 3), (height // 2 + 4, width // 3 + 1), (height - 1, width - 1)):
        block[-1, y, x] = value
    ours, reference = run(operation, block), exact(operation, block)
    special = ~np.isfinite(reference)
    assert 0 < special.sum() < special.size
    np.testing.assert_array_equal(ours[special], reference[special])
    np.testing.assert_allclose(ours[~special], clean[~special], rtol=0, atol=2e-7 * np.abs(clean).max())


def test_infinity_under_a_weight_of_zero_is_nan_as_in_a_direct_kernel():
    operation = convolution((3, 3), count=1, shape=lambda values: np.where(np.arange(3) == 1, 0.0, values))
    block = block_for(operation, (20, 20))
    block[0, 9, 9] = np.inf
    np.testing.assert_array_equal(np.isnan(run(operation, block)), np.isnan(exact(operation, block)))


def test_a_map_of_nan_alone_is_nan():
    operation = OPERATIONS["odd"]
    assert np.isnan(run(operation, np.full((1, 60, 60), np.nan, np.float32))).all()


@pytest.mark.parametrize("value", [1e20, -np.finfo(np.float32).max])
def test_values_that_stand_for_no_data_blur_only_what_they_reach(value):
    operation = convolution((15, 16), depth=3, count=1, match="sum")
    block = block_for(operation, (100, 110))
    clean = exact(operation, block)
    block[1, 60:, 30:50] = value
    ours, reference = run(operation, block), exact(operation, block)
    same = clean == reference
    assert 0 < same.sum() < same.size
    np.testing.assert_allclose(ours[same], reference[same], rtol=0, atol=2e-7 * np.abs(clean).max())
    with np.errstate(over="ignore"):
        reference = reference.astype(np.float32)  # sums beyond its range are infinite
    finite = ~same & np.isfinite(reference)
    np.testing.assert_allclose(ours[finite], reference[finite], rtol=0, atol=2e-7 * np.abs(reference[finite]).max())
    np.testing.assert_array_equal(ours[~np.isfinite(reference)], reference[~np.isfinite(reference)])


@pytest.mark.parametrize("values", [(-1.0, 0.3), (0.0, -0.0), (60_000.0, 1e30)])
def test_a_constant_window_gives_one_value_per_map(values):
    operation = convolution((15, 15), depth=2, bias=0.5)
    block = np.broadcast_to(np.float32(values)[:, None, None], (2, 300, 300))
    ours, reference = run(operation, block), exact(operation, block)
    assert_same_bits(ours, np.broadcast_to(ours[:, :1, :1], ours.shape))
    np.testing.assert_allclose(ours, reference, rtol=1e-5)


def test_a_feature_in_balance_gives_zero_on_a_constant_window():
    operation = convolution((15, 15), shape=lambda values: values - values.mean())
    assert operation.arrays["weights"].sum() != 0  # but for its rounding
    assert not run(operation, np.full((1, 60, 60), 0.7, np.float32)).any()


def test_an_empty_place_in_a_window_that_is_not_empty_gives_zero_and_no_noise():
    operation = convolution((15, 15))
    block = np.zeros((1, 128, 128), np.float32)
    block[0, 100:, 100:] = block_for(operation, (14, 14))[0]
    made = run(operation, block)
    assert not made[:, :80].any()
    assert made[:, 100:, 100:].all()


def test_whole_numbers_give_the_bits_of_a_direct_kernel():
    operation = convolution((21, 21), shape=np.sign)
    block = np.sign(block_for(operation, (100, 130)))
    assert_same_bits(run(operation, block), operation.block(block, operation))


def test_a_feature_of_zeros_gives_its_bias():
    operation = convolution((5, 5), shape=np.zeros_like, bias=(0.0, 2.0))
    made = run(operation, block_for(operation, (40, 40)))
    assert not made[0].any()
    assert (made[1] == 2).all()


def test_the_forecast_grows_with_features_and_hardly_with_their_size():
    def seconds(*args, **params):
        return KERNEL.cost(convolution(*args, **params))

    assert seconds((31, 31)) < seconds((31, 31), count=4) < 4 * seconds((31, 31))
    assert seconds((255, 255)) < 4 * seconds((15, 15))
    assert seconds((9, 9), depth=3, channels="each") == 3 * seconds((9, 9))
    assert seconds((31, 31), stride=2) > seconds((31, 31))


def test_there_is_no_kernel_for_other_layers_nor_for_spectra_beyond_the_bound():
    pool = LAYERS["pool"](type="pool").bind("pool", ("0",), {})
    many = convolution((61, 61), depth=64, count=128)
    for operation in (pool, many):
        assert not KERNEL.supports(operation)
        assert KERNEL.cost(operation) == np.inf
        assert KERNEL.cell(operation) == (1, 1)
        assert KERNEL.scratch(operation, 10, 10) == 0
    with pytest.raises(ValueError, match="no FFT kernel for 'pool'"):
        KERNEL.build((pool,))


def test_the_spectra_are_counted_as_scratch():
    one, four = (KERNEL.scratch(convolution((31, 31), count=n), 0, 0) for n in (1, 4))
    assert four - one >= 3 * 8 * 286**2


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e20])
@pytest.mark.parametrize("case", ["odd", "three maps", "each of three maps"])
def test_a_kernel_holds_no_more_than_its_scratch(case, value):
    operation = OPERATIONS[case]
    block = block_for(operation, KERNEL.cell(operation))
    block[:, 20, 30] = value
    tracemalloc.start()
    try:
        made = run(operation, block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    scratch = KERNEL.scratch(operation, block[0].size, made[0].size)
    assert scratch / 3 < peak - made.nbytes <= scratch


def test_the_length_of_a_transform_is_the_next_that_scipy_calls_fast():
    for need in range(1, 5000):
        assert fft._length(need) == 4 * next_fast_len(-(-need // 4), real=True)
