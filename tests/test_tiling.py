"""Tiles: in step with write units, and cut where a pass would meet an edge within."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import Interval, pixels, whole
from pipeline.layers import LAYERS
from pipeline.stack import Stack
from pipeline.tiling import aligned, pieces

FEATURES = {"edge": np.array([[[-1.0, 2.0, 0.5], [3.0, 4.0, -2.0]]])}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4096), st.integers(1, 8), st.integers(1, 3000))
def test_tiles_are_write_units_or_parts_of_them_where_there_are_such(edge, step, count):
    unit = step * count
    found = aligned(edge, step, unit)
    assert found % step == 0
    assert unit / 2 < found or edge / 2 < found <= edge + step  # about as large as it should be, or a unit
    assert found <= max(edge + step, unit)
    if edge >= unit:
        assert found % unit == 0
    assert aligned(edge, step, 0) == -(-edge // step) * step
    assert aligned(unit, step, unit) == unit


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_pieces_are_the_region_and_only_thin_ones_meet_an_edge_within(data):
    size, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    padding = data.draw(st.sampled_from(["same", "valid"]))
    layers = (
        LAYERS["convolution"](type="convolution", features=("edge",), padding=padding),
        LAYERS["relu"](type="relu"),
        LAYERS["pool"](type="pool", window=size, stride=stride),
    )
    bound = Stack(layers, FEATURES).bind(("i",), "numba")
    extents = bound.extents(data.draw(st.tuples(st.integers(8, 40), st.integers(8, 40))))
    region = tuple(
        Interval(start, data.draw(st.integers(start + 1, n)))
        for n, start in ((n, data.draw(st.integers(0, n - 1))) for n in extents[3])
    )
    found = pieces(bound, 2, region, extents)
    covered = [place for part in found for place in product(*(range(i.start, i.stop) for i in part))]
    assert len(covered) == len(set(covered)) == pixels(region)
    walks = [(part, bound.walk({2: part}, extents)) for part in found]
    met = [part for part, walk in walks if any(pull.is_padded for pulls in walk.pulls[1:] for pull in pulls)]
    assert len(found) - len(met) <= 1
    for part in met:
        assert any(i.stop == n and len(i) <= -(-size // stride) for i, n in zip(part, extents[3], strict=True))
    if region == whole(extents[3]) and size <= stride and all(n % stride == 0 for n in extents[2]):
        assert found == [region]
