"""Each layer against an oracle of its own: SciPy, or plain loops in float64."""

import re
from itertools import product

import numpy as np
import pytest
from scipy import ndimage, signal

from pipeline.errors import StackError
from pipeline.kernels import TOLERANCE
from pipeline.layers import LAYERS
from pipeline.stack import Stack, run_whole


def kernel(*shape, seed=0):
    """All values distinct, of both signs, none zero, symmetric in nothing."""
    values = np.random.default_rng(seed).permutation(np.prod(shape)) + 1.0
    return (values * np.where(values % 3 == 0, -1, 1)).reshape(shape)


FEATURES = {
    "a34": kernel(3, 4),
    "b34": kernel(3, 4, seed=1),
    "c22": kernel(2, 2),
    "d15": kernel(1, 5),
    "e11": kernel(1, 1),
    "deep": kernel(2, 3, 3),
    "flat": kernel(1, 2, 3),
    "cross": np.array([[0.0, 1, 0], [2, 3, 4], [0, 5, 0]]),
    "plus": np.array([[0.0, 2, 0], [-1, 5, 3], [0, 4, 0]]),
}


def bind(params, maps=2, backend=None):
    stack = Stack(tuple(LAYERS[p["type"]](**p) for p in params), FEATURES)
    return stack.bind(tuple(f"m{i}" for i in range(maps)), backend)


def run(params, image, backend=None):
    params = params if isinstance(params, list) else [params]
    return run_whole(bind(params, len(image), backend), image, len(params) - 1)


def test_maps_have_names_of_their_own():
    stack = Stack(
        (LAYERS["convolution"](type="convolution", features=["b.c", "c"], channels="each"),),
        {"b.c": np.ones((1, 1)), "c": np.ones((1, 1))},
    )
    with pytest.raises(StackError, match=r"layer 'convolution': two of its maps would be called 'a\.b\.c'; rename"):
        stack.bind(("a", "a.b"))


def picture(*shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(ours, oracle):
    assert ours.dtype == np.float32
    assert ours.shape == oracle.shape
    np.testing.assert_allclose(ours, oracle, rtol=0, atol=TOLERANCE * np.abs(oracle).max())


def correlated(image, layer):
    """Convolution by SciPy: pad, correlate with the feature spread out by zeros, keep every s-th."""
    out = []
    wide = image.astype(np.float64)
    features = [FEATURES[f] for f in layer["features"]]
    bias = np.broadcast_to(layer.get("bias", 0), len(features))
    (sy, sx), (dy, dx) = layer.get("stride", (1, 1)), layer.get("dilation", (1, 1))
    each = layer.get("channels") == "each"
    for group in wide[:, None] if each else wide[None]:
        for feature, offset in zip(features, bias, strict=True):
            deep = np.broadcast_to(feature, (len(group), *feature.shape[-2:]))
            k, m = deep.shape[1:]
            spread = np.zeros((len(group), dy * (k - 1) + 1, dx * (m - 1) + 1))
            spread[:, ::dy, ::dx] = deep
            padded = group
            if layer.get("padding") == "same":
                pads = [(d * (n - 1) // 2, -(-d * (n - 1) // 2)) for d, n in ((dy, k), (dx, m))]
                mode = {"nearest": "edge"}.get(layer.get("boundary"), layer.get("boundary", "constant"))
                fill = {"constant_values": layer.get("fill", 0)} if mode == "constant" else {}
                padded = np.pad(group, [(0, 0), *pads], mode, **fill)
            found = signal.correlate(padded, spread, "valid", "direct")[0][::sy, ::sx]
            if layer.get("match", "mean") == "mean":
                found = found / deep.size
            out.append(found + offset)
    return np.stack(out)


CONVOLUTIONS = [
    {"features": ["a34", "b34"]},
    {"features": ["a34", "b34"], "match": "sum", "bias": (0.5, -2.0)},
    {"features": ["a34"], "bias": 3.0, "padding": "same"},
    {"features": ["a34"], "padding": "same", "fill": -1.5, "stride": (2, 3)},
    {"features": ["a34", "b34"], "padding": "same", "boundary": "reflect", "channels": "each"},
    {"features": ["c22"], "padding": "same", "boundary": "nearest", "dilation": (3, 2)},
    {"features": ["c22"], "stride": (3, 1), "dilation": (1, 4)},
    {"features": ["d15"], "padding": "same", "boundary": "reflect", "dilation": (1, 3)},
    {"features": ["d15"], "channels": "each", "match": "sum", "bias": (7.0,)},
    {"features": ["deep"], "stride": (2, 2)},
    {"features": ["deep"], "padding": "same", "boundary": "nearest", "match": "sum"},
    {"features": ["flat"], "channels": "each", "padding": "same", "dilation": (2, 2)},
    {"features": ["cross", "plus"], "bias": (1.0, -1.0)},
    {"features": ["e11"], "stride": (4, 4)},
]


@pytest.mark.parametrize("backend", ["numpy", None])
@pytest.mark.parametrize("params", CONVOLUTIONS, ids=str)
def test_convolution_is_scipys_correlation(params, backend):
    for shape in ((2, 13, 14), (2, 14, 17), (2, 3, 13)):
        image = picture(*shape)
        close(run({"type": "convolution", **params}, image, backend), correlated(image, params))


def test_convolution_where_reflecting_goes_round_a_map_smaller_than_the_pad():
    params = {"features": ["d15"], "padding": "same", "boundary": "reflect", "dilation": (1, 3)}
    for width in (1, 2, 3, 5):
        image = picture(1, 2, width)
        close(run({"type": "convolution", **params}, image), correlated(image, params))


def test_convolution_names_its_maps_and_orders_them_map_by_map():
    both = {"type": "convolution", "features": ["a34", "b34"]}
    assert bind([both]).operations[0].maps == ("a34", "b34")
    each = bind([{**both, "channels": "each"}]).operations[0]
    assert each.maps == ("m0.a34", "m0.b34", "m1.a34", "m1.b34")


@pytest.mark.parametrize("backend", ["numpy", None])
@pytest.mark.parametrize("size", [(3, 3), (5, 5), (9, 9), (1, 41), (47, 1)])  # n · (1/n) is not 1 for 41 and 47
def test_the_mean_match_of_a_patch_with_itself_is_exactly_one(size, backend):
    sign = np.sign(kernel(*size)).astype(np.float32)
    stack = Stack((LAYERS["convolution"](type="convolution", features="s"),), {"s": sign.astype(float)})
    for image, expected in ((sign, 1), (-sign, -1)):
        made = run_whole(stack.bind(("m",), backend), image[None], 0)
        assert made.tolist() == [[[expected]]]


POOLS = [{"window": w, "stride": s} for w, s in product((1, 2, 3, (2, 3)), (1, 2, 3, (3, 1), 5))]


def pooled(image, join, window, stride, partial):
    """Pooling by plain loops over the windows that count, each cut to the map."""
    window, stride = (v if isinstance(v, tuple) else (v, v) for v in (window, stride))
    starts = []
    for n, k, s in zip(image.shape[1:], window, stride, strict=True):
        keep = [t for t in range(0, n, s) if t + k <= n or (partial == "keep" and (t == 0 or t - s + k < n))]
        starts.append(keep)
    rows = [[join(image[:, y : y + window[0], x : x + window[1]]) for x in starts[1]] for y in starts[0]]
    return np.moveaxis(np.array(rows, np.float64), -1, 0)


@pytest.mark.parametrize("partial", ["keep", "drop"])
@pytest.mark.parametrize("op", ["max", "min", "mean"])
def test_pool_is_a_plain_loop_over_windows(op, partial):
    join = getattr(np, op)
    for params, shape in product(POOLS, ((2, 7, 8), (1, 3, 11), (3, 4, 4))):
        image = picture(*shape)
        ours = run({"type": "pool", "op": op, "partial": partial, **params}, image)
        oracle = pooled(image.astype(np.float64), lambda part: join(part, axis=(1, 2)), **params, partial=partial)
        close(ours, oracle)
        if op != "mean":
            np.testing.assert_array_equal(ours, oracle)


@pytest.mark.parametrize(
    ("op", "oracle", "beyond"),
    [("max", ndimage.maximum_filter, -np.inf), ("min", ndimage.minimum_filter, np.inf)],
)
def test_pool_is_scipys_filter(op, oracle, beyond):
    image = picture(1, 11, 10)
    filtered = oracle(image, (1, 3, 2), mode="constant", cval=beyond, origin=(0, -1, -1))
    ours = run({"type": "pool", "op": op, "window": (3, 2), "stride": 2}, image)
    np.testing.assert_array_equal(ours, filtered[:, :9:2, ::2])


def test_a_pool_window_larger_than_the_map_counts_what_is_there():
    image = np.array([[[1, 5], [-3, 2]]], np.float32)
    for op, expected in (("max", 5), ("min", -3), ("mean", 1.25)):
        assert run({"type": "pool", "op": op, "window": 3, "stride": 2}, image).tolist() == [[[expected]]]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [[2, -3], [4, 5]]),
        ({"scale": 2.0, "offset": 1.0}, [[5, -5], [9, 11]]),
        ({"scale": (2.0, -1.0)}, [[4, -6], [-4, -5]]),
        ({"scale": (1.0, 3.0), "offset": (10.0, 0.5)}, [[12, 7], [12.5, 15.5]]),
    ],
)
def test_normalise_scales_and_moves_all_maps_or_each(params, expected):
    image = np.array([[[2, -3]], [[4, 5]]], np.float32)
    assert run({"type": "normalise", **params}, image)[:, 0].tolist() == expected


def test_relu_in_every_special_value():
    values = np.array([-2.5, -0.0, 0.0, 3.5, np.inf, -np.inf, np.nan, -1e-45, 1e-45], np.float32)
    out = run({"type": "relu"}, values[None, None])[0, 0]
    expected = np.array([0, 0, 0, 3.5, np.inf, 0, np.nan, 0, 1e-45], np.float32)
    np.testing.assert_array_equal(out, expected)
    assert not np.signbit(out[~np.isnan(out)]).any()  # −0 is gone


@pytest.mark.parametrize("backend", ["numpy", None])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_special_pixel_reaches_exactly_the_matches_that_cover_it(special, backend):
    image = picture(1, 9, 10)
    image[0, 4, 5] = special
    out = run({"type": "convolution", "features": "a34"}, image, backend)[0]
    blank = np.where(np.isfinite(image), image, 0)
    plain = run({"type": "convolution", "features": "a34"}, blank, backend)[0]
    covered = np.zeros(out.shape, bool)
    covered[2:5, 2:6] = True
    weights = FEATURES["a34"][::-1, ::-1]  # output (2, 2) sees the pixel with the last weight
    np.testing.assert_array_equal(out[2:5, 2:6], (special * weights).astype(np.float32))
    np.testing.assert_array_equal(out[~covered], plain[~covered])


@pytest.mark.parametrize("op", ["max", "min", "mean"])
def test_nan_goes_through_every_pool_and_only_where_it_is(op):
    image = picture(1, 6, 7)
    image[0, 2, 3] = np.nan
    out = run({"type": "pool", "op": op}, image)[0]
    assert np.argwhere(np.isnan(out)).tolist() == [[1, 1]]


def test_pools_of_infinities_and_zeros():
    line = np.array([[[-np.inf, -np.inf, np.inf, -np.inf, -0.0, -0.0, 0.0, -0.0]]], np.float32)
    params = {"type": "pool", "window": (1, 2), "stride": (1, 2)}
    top = run({**params, "op": "max"}, line)[0, 0]
    assert top.tolist() == [-np.inf, np.inf, 0, 0]
    assert not np.signbit(top[2:]).any()
    np.testing.assert_array_equal(run({**params, "op": "mean"}, line)[0, 0], [-np.inf, np.nan, 0, 0])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            [{"features": ["a34", "c22"]}],
            "'a34' is 3 × 4 and feature 'c22' is 2 × 2; the features of one layer",
        ),
        ([{"features": "deep"}], "'convolution': feature 'deep' has 2 channels and the layer takes 3 maps"),
        ([{"features": "deep", "channels": "each"}], "the layer takes one map at a time ('channels: each')"),
        ([{"features": "flat"}], "feature 'flat' has 1 channel and the layer takes 3 maps"),
        ([{"features": "flat"}], "or 'channels: each', which takes it over one map after another"),
        (
            [{"features": "d15", "dilation": (1, 2000)}],
            "'d15' spans 1 × 8001 pixels; at most",
        ),
        ([{"type": "normalise", "scale": (1.0, 2.0)}], "scale has 2 numbers and the layer takes 3 maps"),
        ([{"type": "normalise", "offset": ()}], "offset has 0 numbers and the layer takes 3 maps"),
        (
            [{"type": "pool"}, {"features": "a34", "name": "second"}],
            "layer 2 'second': feature 'a34' spans 3 × 4, the map is 3 × 3; no place is left for it",
        ),
        (
            [{"type": "pool", "window": (2, 7), "partial": "drop"}],
            "layer 1 'pool': pool window spans 2 × 7, the map is 6 × 5; no place is left for it",
        ),
    ],
)
def test_a_stack_that_cannot_be_is_refused_in_the_users_words(params, words):
    with pytest.raises(StackError, match=re.escape(words)):
        bind([{"type": "convolution", **p} for p in params], maps=3).extents((6, 5))
