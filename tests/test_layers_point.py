"""Point layers: values against SciPy and by hand, NaN and infinity, and bits that do not depend on the block."""

import re

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import special

from pipeline.kernels import BACKENDS, TOLERANCE, kernel_for
from pipeline.layers import LAYERS
from pipeline.stack import Stack, run_whole
from tests.examples import EXAMPLES

NAN, INF = np.nan, np.inf
STEADY = [
    {"type": kind, **params}
    for kind in ("abs", "clip", "leaky_relu", "sigmoid", "softmax", "tanh", "threshold")
    for params in EXAMPLES[kind]
]


def bind(params, maps=1):
    return Stack((LAYERS[params["type"]](**params),), {}).bind(tuple(map(str, range(maps))))


def run(params, values):
    image = np.asarray(values, np.float32)
    return run_whole(bind(params, len(image)), image, 0)


@pytest.mark.parametrize(
    ("params", "values", "expected"),
    [
        ({"type": "abs"}, [-2, -0.0, 3, -INF, NAN], [2, 0, 3, INF, NAN]),
        ({"type": "leaky_relu", "slope": 0.5}, [-2, 0, 3, -INF, INF, NAN], [-1, 0, 3, -INF, INF, NAN]),
        ({"type": "clip", "low": -1.0, "high": 2.0}, [-3, -1, 0.5, 2, INF, -INF, NAN], [-1, -1, 0.5, 2, 2, -1, NAN]),
        ({"type": "clip", "low": 0.0}, [-3, -0.0, 5, INF], [0, 0, 5, INF]),
        ({"type": "clip", "high": 0.0}, [-3, 5, -INF], [-3, 0, -INF]),
        ({"type": "threshold", "at": 0.5}, [0.49, 0.5, 7, -INF, INF, NAN], [0, 0.5, 7, 0, INF, NAN]),
        ({"type": "threshold", "at": 0.5, "below": -1.0, "above": 1.0}, [0.4, 0.5, 7, NAN], [-1, 1, 1, NAN]),
        ({"type": "sigmoid"}, [0, INF, -INF, NAN, 1000, -1000], [0.5, 1, 0, NAN, 1, 0]),
        ({"type": "tanh"}, [0, INF, -INF, NAN, 1000, -1000], [0, 1, -1, NAN, 1, -1]),
    ],
    ids=str,
)
def test_values_by_hand(params, values, expected):
    np.testing.assert_array_equal(run(params, [[values]])[0, 0], np.array(expected, np.float32))


def test_a_clip_at_zero_knows_one_zero():
    for params in ({"low": 0.0}, {"low": -0.0}, {"high": -0.0}):
        out = run({"type": "clip", **params}, [[[-0.0, 0.0]]])
        assert not np.signbit(out).any()


def test_curves_are_scipys_and_numpys_in_float64():
    x = np.concatenate([np.linspace(-30, 30, 4001), [1e-30, -1e-7, 1e-3, 89, -104]]).astype(np.float32)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(run({"type": "tanh"}, [[x]])[0, 0], np.tanh(wide), rtol=1e-7, atol=0)
    np.testing.assert_allclose(run({"type": "sigmoid"}, [[x]])[0, 0], special.expit(wide), rtol=1e-7, atol=1e-45)


def test_softmax_is_scipys_and_its_shares_add_up_to_one():
    image = np.random.default_rng(1).normal(0, 30, (5, 9, 11)).astype(np.float32)
    out = run({"type": "softmax"}, image)
    np.testing.assert_allclose(out, special.softmax(image.astype(np.float64), axis=0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(out.sum(axis=0), 1, rtol=0, atol=TOLERANCE)
    image[2, 4, 5], image[1, 3, 3], image[0, 2, 2] = NAN, INF, -INF
    out = run({"type": "softmax"}, image)
    assert {tuple(at) for at in np.argwhere(np.isnan(out).any(axis=0)).tolist()} == {(4, 5), (3, 3)}
    assert np.isnan(out[:, [4, 3], [5, 3]]).all()
    assert out[0, 2, 2] == 0


@pytest.mark.parametrize("params", STEADY, ids=str)
def test_a_pixel_s_bits_do_not_depend_on_where_in_which_block_it_lies(params):
    """One pixel alone, short and long rows, any offset from a register's edge, and rows that are not side by side."""
    (operation,) = bind(params, 3).operations
    for backend in (name for name, b in BACKENDS.items() if b.supports(operation)):
        kernel = np.errstate(all="ignore")(kernel_for((operation,), backend))
        values = np.random.default_rng(4).normal(0, 5, (3, 7, 97)).astype(np.float32)
        values[0, 3, 50:54] = NAN, INF, -INF, -0.0
        whole = kernel(values).view("u4")
        for start in range(17):
            for size in (1, 2, 3, 5, 8, 15, 16, 33):
                rows = slice(start % 6, start % 6 + 1 + size % 2)
                piece = kernel(values[:, rows, start : start + size]).view("u4")
                np.testing.assert_array_equal(piece, whole[:, rows, start : start + size])
        turned = kernel(np.asfortranarray(values)).view("u4")
        np.testing.assert_array_equal(turned, whole)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"type": "clip"}, "clip needs low, high or both"),
        ({"type": "clip", "low": 1.0, "high": 1.0}, "clip goes from 1 to 1; low must be less than high"),
        ({"type": "leaky_relu", "slope": 0.0}, "greater than 0"),
        ({"type": "threshold"}, "Field required"),
        ({"type": "threshold", "at": NAN}, "finite number"),
    ],
)
def test_numbers_that_make_no_layer_are_refused(params, words):
    with pytest.raises(ValidationError, match=re.escape(words)):
        LAYERS[params["type"]](**params)


@pytest.mark.parametrize(
    "params",
    [
        {"type": "normalise", "scale": 1e39},
        {"type": "normalise", "offset": [0.0, -1e39]},
        {"type": "clip", "low": -1e39},
        {"type": "threshold", "at": 0.0, "below": 1e39},
        {"type": "leaky_relu", "slope": 1e39},
        {"type": "vote", "weights": {"a": [1e39], "b": [1.0]}},
        {"type": "vote", "weights": {"a": [1.0], "b": {"0": -1e39}}},
        {"type": "vote", "weights": {"a": [1.0], "b": [1.0]}, "bias": {"a": 1e39, "b": 0.0}},
        {"type": "convolution", "features": "dot", "bias": 1e39},
    ],
    ids=str,
)
def test_numbers_that_float32_does_not_hold_are_refused(params):
    with pytest.raises(ValidationError, match=r"1e\+39 is too large for float32"):
        LAYERS[params["type"]](**params)
