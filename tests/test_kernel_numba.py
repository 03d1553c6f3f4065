"""Numba's kernel: several layers in one pass have the bits of one layer after another."""

import numpy as np
import pytest

from pipeline.kernels import BACKENDS, TOLERANCE, kernel_for
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


@pytest.mark.parametrize("width", [2, 9, 16, 31, 32, 33, 64, 100, 129])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_squares_of_sums_in_registers_have_the_bits_of_sums_and_then_squares(count, width):
    """Rows shorter than what registers take at a time and longer, an odd last row, and features in several groups."""
    strides = ((1, 1), (1, 2), (3, 1))[width % 3]
    first = convolution(2, count, (3, 4), bias=0.5, stride=strides)
    operations = first, other("relu", count), other("pool", count)
    block, _ = block_for(first, (7, 2 * width + width % 2))
    for values in (block, with_special_values(block)):
        together = kernel_for(operations, "numba")(values)
        single = values
        for operation in operations:
            single = kernel_for((operation,), "numba")(single)
        nan = np.isnan(single)
        np.testing.assert_array_equal(nan, np.isnan(together))
        np.testing.assert_array_equal(together.view("u4")[~nan], single.view("u4")[~nan])
