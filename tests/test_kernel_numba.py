"""Numba's kernel: several layers in one pass have the bits of one layer after another."""

import numpy as np
import pytest

from pipeline.geometry import Interval, Pull, whole
from pipeline.given import Raw
from pipeline.kernels import BACKENDS, TOLERANCE, kernel_for
from pipeline.kernels import numba as kernels
from pipeline.padded import scattered
from pipeline.pixels import Encoding, PixelScale
from pipeline.room import Room
from tests.test_kernels import block_for, convolution, other, products, with_special_values

CHAINS = {
    "narrow": (convolution(1, 3, (3, 3)), other("relu"), other("pool")),
    "monotone": (
        convolution(2, 3, (3, 4), bias=(0.5, -1.0, 0.0)),
        other("normalise", scale=(0.5, 2.0, 1e-38), offset=0.25),
        other("relu"),
        other("pool", op="min", window=3),
    ),
    "not monotone": (convolution(3, 3, (2, 2), stride=2), other("normalise", scale=-1.5), other("pool", window=(3, 2))),
    "mean": (convolution(2, 3, (5, 5), match="sum"), other("relu"), other("pool", op="mean", stride=(3, 1))),
    "products": (products(1, 3, (9, 9)), other("relu"), other("pool", stride=(2, 4))),
    "leaky": (
        convolution(1, 3, (3, 3)),
        other("leaky_relu", slope=0.1),
        other("clip", low=-0.5, high=0.25),
        other("pool"),
    ),
    "turned": (convolution(1, 3, (3, 3)), other("abs"), other("pool", op="min")),
    "down": (convolution(2, 3, (3, 2), stride=(2, 1)), other("relu"), other("pool", window=3, stride=2)),
    "point layers": (other("relu"), other("normalise", scale=3.0, offset=-1.0), other("relu")),
    "pooling": (other("normalise", scale=2.0), other("pool", window=(4, 1), stride=(1, 2))),
    "only the first convolution": (convolution(2, 3, (3, 3)), other("relu"), convolution(3, 3, (2, 2))),
}


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("chain", CHAINS)
def test_layers_in_one_pass_have_the_bits_of_one_after_another(chain, seed):
    operations = CHAINS[chain]
    count = BACKENDS["numba"].fuse(operations)
    assert count == (2 if chain == "only the first convolution" else len(operations))
    block = np.random.default_rng(seed).standard_normal((operations[0].inputs, 61, 83), np.float32)
    if seed % 2:
        block = with_special_values(block)
        block[0, 20:40] *= np.float32(1e-45)  # sums that vanish in a division
    together = kernel_for(operations[:count], "numba")(block)
    with np.errstate(all="ignore"):
        single = block
        for operation in operations[:count]:
            single = kernel_for((operation,), "numba")(single)
        plain = block
        for operation in operations[:count]:
            plain = kernel_for((operation,), "numpy")(plain)
    nan = np.isnan(together)
    np.testing.assert_array_equal(nan, np.isnan(single))
    np.testing.assert_array_equal(together.view("u4")[~nan], single.view("u4")[~nan])
    if not seed % 2:
        np.testing.assert_allclose(together, plain, rtol=0, atol=TOLERANCE * np.abs(plain).max())


@pytest.mark.parametrize("between", ["relu", "bias, relu", "clip", "clip at -0", "nothing"])
@pytest.mark.parametrize("width", [2, 9, 16, 31, 32, 33, 64, 100, 129])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_squares_of_sums_in_registers_have_the_bits_of_sums_and_then_squares(count, width, between):
    """Rows shorter than what registers take at a time and longer, an odd last row, and features in several groups."""
    strides = ((1, 1), (1, 2), (3, 1))[width % 3]
    first = convolution(2, count, (3, 4), bias=0.5 if "bias" in between else 0.0, stride=strides)
    steps = {
        "clip": [other("clip", count, low=-0.25, high=0.5)],
        "clip at -0": [other("clip", count, low=-0.0, high=4.0), other("normalise", count, scale=2.0)],
        "nothing": [],
    }
    operations = first, *steps.get(between, [other("relu", count)]), other("pool", count)
    block, _ = block_for(first, (7, 2 * width + width % 2))
    for values in (block, with_special_values(block)):
        together = kernel_for(operations, "numba")(values)
        single = values
        for operation in operations:
            single = kernel_for((operation,), "numba")(single)
        nan = np.isnan(single)
        np.testing.assert_array_equal(nan, np.isnan(together))
        np.testing.assert_array_equal(together.view("u4")[~nan], single.view("u4")[~nan])


@pytest.mark.parametrize("strip", [1, 2**13, 2**18])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("chain", [name for name in CHAINS if name not in ("products", "not monotone")])
def test_raw_integers_give_the_bits_of_their_map_values(chain, dtype, strip, monkeypatch):
    """Of one strip or many, of several channels or one, whether the pixels of a row lie side by side or not."""
    monkeypatch.setattr(kernels, "_STRIP", strip)
    operations = CHAINS[chain][: BACKENDS["numba"].fuse(CHAINS[chain])]
    assert BACKENDS["numba"].by_strips(operations[0])
    scale = PixelScale(dtype)
    kernel, shape = kernel_for(operations, "numba"), (operations[0].inputs, 67, 83)
    raw = np.random.default_rng(strip).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    expected = kernel(scale.to_map(raw))
    apart = np.repeat(raw, 2, axis=2)[:, :, ::2]
    pulls = tuple(Pull(Interval(0, n), Interval(0, n), n) for n in shape[1:])
    for block in (raw, apart, np.pad(raw, ((0, 0), (1, 1), (2, 3)))[:, 1:-1, 2:-3]):
        pixels = scattered(Raw([(whole(shape[1:]), block)], scale), pulls, operations[0])
        out = np.empty((len(expected), expected.shape[1] + 2, expected.shape[2] + 5), np.float32)[:, 1:-1, 2:-3]
        assert kernel(pixels, out=out) is out
        np.testing.assert_array_equal(out.view("u4"), expected.view("u4"))
        np.testing.assert_array_equal(kernel(pixels).view("u4"), expected.view("u4"))


def test_a_strip_has_rows_enough_whatever_the_width():
    for row in (4, 8200, 2**20):
        for pool in ((1, 1), (2, 2), (3, 2), (5, 1)):
            for window in ((1, 1), (3, 1), (11, 1), (31, 2)):
                reach = (pool[0] - 1) * window[1] + window[0]
                lift, high = kernels._strip(1000, (row, 4), pool, window)
                assert high == (lift - 1) * pool[1] * window[1] + reach
                assert high >= 4 * (reach - pool[1] * window[1])  # or too much of it is made twice
    assert kernels._strip(3, (4, 4), (2, 2), (3, 1)) == (3, 8)
    assert kernels._strip(1000, (4, 2**17), (2, 2), (3, 1)) == (4, 10)  # what is made counts, too


@pytest.mark.parametrize("chain", [name for name in CHAINS if name not in ("products", "not monotone")])
def test_buffers_of_strips_are_those_that_are_forecast(chain, monkeypatch):
    operations = CHAINS[chain][: BACKENDS["numba"].fuse(CHAINS[chain])]
    asked = []
    monkeypatch.setattr(kernels, "run_strips", lambda *given: asked.append(given) or (0, 0))
    made = read = (150, 301)
    for operation in reversed(operations):
        read = tuple(len(w.reach(Interval(0, n))) for w, n in zip(operation.windows, read, strict=True))
    raw = Raw([(whole(read), np.zeros((operations[0].inputs, *read), np.uint8))], PixelScale("uint8"))
    pulls, nothing = tuple(Pull(Interval(0, n), Interval(0, n), n) for n in read), np.empty(0, np.intp)
    room = Room(np.empty((len(operations[-1].maps), *made), np.int8), Encoding("int8"), nothing, nothing)
    kernels._build(operations)(scattered(raw, pulls, operations[0]), room=room)
    _, (inputs, wide), (lift, high), _, _, columns, *_, pooling, shape, out, _, _, _ = asked[0]
    assert out[0].size == shape[0] * lift * shape[2]
    under = shape[0] * pooling[1] * columns if pooling[0] else 0
    assert BACKENDS["numba"].strip_bytes(operations, made) == 4 * (inputs * high * wide + out[0].size + under)
