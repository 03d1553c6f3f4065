"""Compiled loops: what NumPy gives, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compiled import pooling
from pipeline.compiled.loops import look_up, survey
from pipeline.compiled.narrowing import halve, quantise
from pipeline.compiled.taps import separate

RNG = np.random.default_rng(11)
STRANGE = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 65519, 65520, 6e-8, 1e-8, 1e38, -2.5], np.float32)


def maps_of(shape, part=0.3):
    maps = RNG.standard_normal(shape, np.float32)
    where = RNG.random(shape) < part
    maps[where] = RNG.choice(STRANGE, int(where.sum()))
    return maps


def range_of(maps):
    numbers = maps[~np.isnan(maps)]
    return (numbers.min(), numbers.max()) if len(numbers) else (np.inf, -np.inf)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_look_up_of_a_strided_view(dtype):
    numbers = RNG.integers(0, np.iinfo(dtype).max + 1, (2, 37, 53)).astype(dtype)[:, 3:, 5:50]
    table = RNG.standard_normal(np.iinfo(dtype).max + 1, np.float32)
    out = np.empty((2, 34, 60), np.float32)[:, :, 7:52]
    look_up(numbers, table, out)
    np.testing.assert_array_equal(out, table[numbers])


@pytest.mark.parametrize("width", [1, 7, 8, 33, 64])
def test_half_rounds_as_numpy_does(width):
    maps = maps_of((2, 5, width))
    made = np.empty(maps.shape, np.float16)
    assert halve(maps, made.view(np.uint16)) == range_of(maps)
    with np.errstate(over="ignore"):
        expected = maps.astype(np.float16)
    assert set(made[np.isnan(expected)].view("u2").tolist()) <= {0x7E00}
    np.testing.assert_array_equal(np.isnan(made), np.isnan(expected))
    np.testing.assert_array_equal(np.nan_to_num(made).view("u2"), np.nan_to_num(expected).view("u2"))


SCALES = st.one_of(st.sampled_from([1 / 127, 2 / 254, 0.1, 3.0, 1e-30, 1e30]), st.floats(1e-6, 1e6))


@given(st.integers(1, 40), SCALES, st.floats(-2, 2), st.sampled_from([np.int8, np.uint8, np.int16, np.uint16]))
def test_quantise_counts_in_float64_cuts_and_marks_nan(width, scale, offset, dtype):
    limits = np.iinfo(dtype)
    first, last, missing = float(limits.min + 1), float(limits.max), float(limits.min)
    # Halves and their neighbours, where a quotient that is off by its last bit would be rounded to another number.
    halves = (RNG.integers(first, last, (2, 5, width)) + 0.5) * scale + offset
    for values in (maps_of((2, 5, width)), halves.astype(np.float32)):
        made = np.empty(values.shape, dtype)
        assert quantise(values, offset, scale, first, last, missing, made) == range_of(values)
        with np.errstate(over="ignore"):
            counted = np.rint((values.astype(np.float64) - offset) / scale)
        expected = np.where(np.isnan(values), missing, np.clip(counted, first, last)).astype(dtype)
        np.testing.assert_array_equal(made, expected)


@given(st.integers(1, 40), st.sampled_from([0.0, 0.02, 1.0]))
def test_survey_gives_the_range_of_numbers_and_every_nan_the_same_bits(width, part):
    maps = maps_of((2, 3, 2 * width), part)[:, :, ::2]  # a view
    before = maps.copy()
    assert survey(maps) == range_of(before)
    bits = maps.copy().view(np.uint32)
    assert set(bits[np.isnan(before)].tolist()) <= {int(np.float32(np.nan).view(np.uint32))}
    kept = ~np.isnan(before)
    np.testing.assert_array_equal(bits[kept], before.view(np.uint32)[kept])


def test_separate_finds_products_and_nothing_else():
    column, row = RNG.standard_normal(9), RNG.standard_normal(4)
    found = separate(np.outer(column, row))
    assert found is not None
    np.testing.assert_allclose(np.outer(*found), np.outer(column, row), rtol=3e-7)
    narrow = np.outer(column, row).astype(np.float32).astype(np.float64)
    assert separate(narrow) is not None  # float32's own rounding is allowed
    broken = np.outer(column, row)
    broken[3, 2] *= 1 + 1e-6
    assert separate(broken) is None
    assert separate(np.zeros((3, 3))) is None
    zeros = np.outer([0.0, 1, 2], [3.0, 0, 1])
    assert separate(zeros) is not None
    zeros[0, 1] = 1e-9
    assert separate(zeros) is None


@pytest.mark.parametrize("width", [1, 7, 8, 15, 16, 17, 33, 64])
@pytest.mark.parametrize(("op", "join"), [(pooling.MAX, np.maximum), (pooling.MIN, np.minimum)])
def test_squares_are_pooled_as_numpy_does_and_no_zero_is_negative(width, op, join):
    columns, ring, target = 2 * width + 1, maps_of((2, 2 * width + 1)), np.full(width + 2, 7, np.float32)
    pooling.pool(ring.ravel(), (3, 5, 2, 0), columns, 2, 2, op, np.empty(columns, np.float32), target, 1, width)
    expected = join.reduce([ring[:, n : 2 * width : 2] for n in (0, 1)], axis=(0, 1)) + np.float32(0)
    np.testing.assert_array_equal(target, [7, *expected, 7])
    assert not np.signbit(target[target == 0]).any()
