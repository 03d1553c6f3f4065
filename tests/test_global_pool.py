"""Global pooling in memory: the largest value and the exact mean of whole maps, and layers after it."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import pipeline
from pipeline.layers import LAYERS

NAN, INF = np.nan, np.inf


def load(*layers, features=None):
    config = {"input": {"images": "a.zarr"}, "layers": list(layers), "output": {"store": "out.zarr"}}
    return pipeline.load(config | ({"features": features} if features else {}))


def pooled(op, image):
    return load({"type": "abs"}, {"type": "global_pool", "op": op}).stack(np.asarray(image, np.float32))


def test_it_joins_all_and_no_other_layer_does():
    for kind, layer in LAYERS.items():
        params = {"features": ("a",)} if kind == "convolution" else {}
        assert layer.model_construct(type=kind, **params).joins_all == (kind == "global_pool")


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_the_mean_is_that_of_fractions_and_the_maximum_numpys(image):
    job = load({"type": "normalise"}, {"type": "global_pool", "op": "mean"})
    exact = [sum(map(Fraction, values.ravel().tolist())) / values.size for values in image]
    made = job.stack(image)
    assert made.shape == (len(image), 1, 1)
    for one, expected in zip(made.ravel(), exact, strict=True):
        np.testing.assert_allclose(one, float(expected), rtol=2**-23, atol=1e-45)
    top = load({"type": "normalise"}, {"type": "global_pool"}).stack(image)
    np.testing.assert_array_equal(top[:, 0, 0], image.max(axis=(1, 2)))


def test_sums_that_cancel_in_every_float_are_exact():
    image = np.array([[1e30, 3.0, -1e30, 0.0]], np.float32)
    assert load({"type": "normalise"}, {"type": "global_pool", "op": "mean"}).stack(image).item() == 0.75


@pytest.mark.parametrize("op", ["max", "mean"])
@pytest.mark.parametrize(("pixels", "expected"), [([[1, NAN, 5]], NAN), ([[1, -INF]], INF), ([[-INF, NAN]], NAN)])
def test_nan_and_infinity_are_told(op, pixels, expected):
    np.testing.assert_array_equal(pooled(op, pixels).ravel(), [np.float32(expected)])


def test_infinities_of_both_signs_have_no_mean():
    image = np.array([[INF, -INF, 1]], np.float32)
    assert np.isnan(load({"type": "normalise"}, {"type": "global_pool", "op": "mean"}).stack(image)).all()


def test_layers_after_it_see_one_pixel_of_each_map():
    votes = {"weights": {"low": [-1.0], "high": [1.0]}, "bias": {"low": 1.0, "high": -1.0}}
    job = load({"type": "abs"}, {"type": "global_pool"}, {"type": "vote", **votes}, {"type": "softmax"})
    image = np.random.default_rng(3).normal(size=(50, 40)).astype("f4")
    largest = float(np.abs(image).max())
    shares = np.exp([1 - largest, largest - 1])
    np.testing.assert_allclose(job.stack(image)[:, 0, 0], shares / shares.sum(), rtol=1e-6)
    np.testing.assert_array_equal(job.stack(image, layer="abs"), np.abs(image)[None])
    assert job.stack(image, layer="global_pool").item() == np.float32(largest)


def test_a_window_larger_than_one_pixel_does_not_fit_after_it():
    job = load(
        {"type": "abs"},
        {"type": "global_pool"},
        {"type": "convolution", "features": "f"},
        features={"f": {"rows": [[1, 2]]}},
    )
    with pytest.raises(pipeline.errors.StackError, match="the map is 1 × 1; no place is left for it"):
        job.stack(np.zeros((5, 5), "u1"))
