"""Padded blocks: raw pixels where they lie are those of the block."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compiled.gather import gather
from pipeline.geometry import Boundary, Interval, Window, whole
from pipeline.given import Raw
from pipeline.padded import padded, scattered
from pipeline.pixels import PixelScale
from tests.test_kernels import convolution


@st.composite
def cuts(draw, extent):
    """An axis cut into intervals."""
    inner = draw(st.sets(st.integers(1, extent - 1), max_size=3)) if extent > 1 else set()
    places = [0, *sorted(inner), extent]
    return [Interval(a, b) for a, b in pairwise(places)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_raw_pixels_that_lie_apart_give_the_padded_block(data):
    extents = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 40)))
    windows = [
        Window(
            size, data.draw(st.integers(1, 2)), pad_lo=data.draw(st.integers(0, 5)), pad_hi=data.draw(st.integers(0, 5))
        )
        for size in data.draw(st.tuples(*(st.integers(1, min(4, e)) for e in extents)))
    ]
    boundary = data.draw(st.sampled_from(list(Boundary)))
    channels = data.draw(st.integers(1, 3))
    operation = replace(convolution(channels, 1, (1, 1)), boundary=boundary, fill=data.draw(st.floats(-2, 2, width=32)))
    ends = [w.output_extent(n) for w, n in zip(windows, extents, strict=True)]
    wanted = [
        Interval(start, data.draw(st.integers(start + 1, end)))
        for end, start in ((end, data.draw(st.integers(0, end - 1))) for end in ends)
    ]
    pulls = tuple(w.pull(i, n, boundary) for w, i, n in zip(windows, wanted, extents, strict=True))
    scale = PixelScale(data.draw(st.sampled_from(["uint8", "int8", "uint16", "int16"])))
    pixels = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 127, (channels, *extents), scale.dtype)
    parts = [
        ((rows, columns), _laid_out(pixels[:, slice(rows.start, rows.stop), slice(columns.start, columns.stop)], way))
        for rows in data.draw(cuts(extents[0]))
        for columns in data.draw(cuts(extents[1]))
        for way in [data.draw(st.sampled_from(["as it is", "close", "interleaved", "unaligned", "wider"]))]
    ]
    raw = Raw(parts, scale)
    block = scattered(raw, pulls, operation)
    expected = padded(raw, pulls, operation)
    assert block is not None
    assert block.shape == expected.shape
    values = np.full(expected.shape, np.nan, np.float32)
    first = data.draw(st.integers(0, expected.shape[1] - 1))
    gather(block.source, first, values[:, first:])
    np.testing.assert_array_equal(values[:, first:].view("u4"), expected[:, first:].view("u4"))
    assert np.isnan(values[:, :first]).all()


def _laid_out(pixels, way):
    """The same pixels, otherwise in memory."""
    if way == "close":
        return np.ascontiguousarray(pixels)
    if way == "interleaved":
        return np.ascontiguousarray(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)
    if way == "unaligned":
        room = np.zeros(pixels.nbytes + 1, np.uint8)[1:].view(pixels.dtype).reshape(pixels.shape)
        room[...] = pixels
        return room
    if way == "wider":
        return pixels.astype(np.int64)
    return pixels


@pytest.mark.parametrize("dtype", ["float32", "bool", "uint32"])
def test_pixels_that_no_line_makes_map_values_of_are_no_matter_of_strips(dtype):
    pulls = tuple(Window().pull(Interval(0, 4), 4) for _ in range(2))
    raw = Raw([(whole((4, 4)), np.zeros((1, 4, 4), dtype))], PixelScale(dtype))
    assert scattered(raw, pulls, convolution(1, 1, (1, 1))) is None
