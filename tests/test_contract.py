"""The contract of each registered layer: a pixel depends on its window to the corners, and on no more.

A new layer needs parameters in tests/examples.py, nothing else.
"""

from itertools import product

import numpy as np
import pytest

from pipeline.geometry import Interval, whole
from pipeline.given import Held
from pipeline.layers import LAYERS
from pipeline.stack import Stack, finished, run_whole
from tests.examples import EXAMPLES, FEATURES

PARAMS = [{"type": kind, **params} for kind in LAYERS for params in EXAMPLES.get(kind, [])]


RANGES = [(-np.inf, np.inf), (0, np.inf), (-np.inf, -0.25), (-0.3, 0.7), (2, 5), (-4, -1), (0.1, 0.1), (-3e38, 3e38)]


def test_every_registered_layer_has_an_example():
    lacking = sorted(LAYERS.keys() - EXAMPLES.keys())
    assert not lacking, f"add example parameters to EXAMPLES in tests/examples.py for: {', '.join(lacking)}"


@pytest.mark.parametrize("backend", ["numpy", None])
@pytest.mark.parametrize("params", [p for p in PARAMS if not LAYERS[p["type"]](**p).joins_all], ids=str)
def test_contract_a_pixel_depends_on_its_declared_window_to_the_corners_and_on_no_more(params, backend):
    layer = LAYERS[params["type"]](**params)
    bound = Stack((layer,), FEATURES).bind(("m0", "m1"), backend)
    (operation,) = bound.operations
    for shape in ((11, 9), (8, 14), (12, 12)):
        image = np.random.default_rng(3).standard_normal((2, *shape), np.float32)
        extents = bound.extents(shape)
        complete = whole(extents[1])

        def make(pixels, region=complete, extents=extents):
            walk = bound.walk({0: region}, extents)
            rows, columns = walk.read
            part = pixels[:, rows.start : rows.stop, columns.start : columns.stop]
            return finished(bound.run(Held(part, walk.read), walk, {0: region}, extents)[0])

        plain = make(image)
        for y, x in product(*(sorted({0, n // 2, n - 1}) for n in extents[1])):
            lines = []
            for window, at, extent in zip(operation.windows, (y, x), shape, strict=True):
                taps = [at * window.stride - window.pad_lo + window.dilation * t for t in range(window.size)]
                lines.append(sorted({operation.boundary.source(t, extent) for t in taps} - {None}))
            inside = np.zeros(shape, bool)
            inside[np.ix_(*lines)] = True
            strange = np.where(inside, image, np.float32(np.nan))
            for region in (complete, (Interval(y, y + 1), Interval(x, x + 1))):
                at = (y, x) if region is complete else (0, 0)
                moved = make(strange, region)[:, at[0], at[1]]
                np.testing.assert_array_equal(moved.view("u4"), plain[:, y, x].view("u4"), f"{shape}, {y, x}")
            for corner in product(*((line[0], line[-1]) for line in lines)):
                outcomes = []
                for push in (np.float32(1e4), np.float32(-1e4)):  # a maximum moves up only, a minimum down
                    pushed = image.copy()
                    pushed[:, *corner] += push * np.float32([1, 2])  # what all maps share leaves a softmax as it is
                    outcomes.append((make(pushed)[:, y, x] != plain[:, y, x]).any())
                assert any(outcomes), f"{shape}: {corner} is in the window of {y, x} and moves nothing"


@pytest.mark.parametrize("backend", ["numpy", None])
@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_contract_numbers_lie_within_the_limits_that_follow_from_those_of_the_input(params, backend):
    layer = LAYERS[params["type"]](**params)
    bound = Stack((layer,), FEATURES).bind(("m0", "m1"), backend)
    draw = np.random.default_rng(7)
    for ends in RANGES:
        low, high = (float(np.float32(end)) for end in ends)
        least, most = layer.limits((low, high))
        inner = np.clip(draw.normal(0, 3, (2, 24, 24)), low, high)
        edged = np.where(draw.random(inner.shape) < 0.5, inner, draw.choice([low, high], inner.shape))
        for image in (inner, edged, np.full_like(inner, low), np.full_like(inner, high)):
            made = run_whole(bound, image.astype(np.float32), 0)
            made = made[~np.isnan(made)].astype(float)
            assert ((least <= made) & (made <= most)).all(), f"{ends}: {made.min()} to {made.max()}"


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_contract_what_pixels_are_off_takes_results_no_further_than_the_layer_says(params):
    (operation,) = Stack((LAYERS[params["type"]](**params),), FEATURES).bind(("m0", "m1"), "numpy").operations
    draw = np.random.default_rng(5)
    block = draw.normal(0.2, 1, (2, *(w.span + 3 * w.stride for w in operation.windows)))
    plain = operation.block(block, operation)
    even = np.zeros(plain.shape[1:], bool)
    for most in (1e-3, 0.3, 3.0):
        off = most * draw.random(block.shape) ** 4
        doubt = operation.doubt(block, off, even, operation)
        for _ in range(20):
            moved = block + off * draw.choice([-1, 1, -0.3, 0.6], block.shape)
            assert (np.abs(operation.block(moved, operation) - plain) <= doubt + 1e-12).all()
