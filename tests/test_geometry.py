"""Halo arithmetic against brute force: every tap listed, position by position."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import (
    Boundary,
    Interval,
    Window,
    compose,
    hull,
    intersect,
    is_empty,
    pixels,
    whole,
)

PAD_MODES = {Boundary.CONSTANT: "constant", Boundary.REFLECT: "reflect", Boundary.NEAREST: "edge"}

PADDED = st.builds(
    Window,
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 9),
    st.integers(0, 9),
)
PARTIAL = st.builds(Window, st.integers(1, 6), st.integers(1, 5), partial=st.just(True))
SAME = st.builds(Window.same, st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))


def taps(window, output):
    first = output * window.stride - window.pad_lo
    return [first + window.dilation * t for t in range(window.size)]


def sources_by_numpy(boundary, extent, pad):
    """Return the source of each position from -pad on as NumPy pads it, -1 where the fill stands."""
    fill = {"constant_values": -1} if boundary is Boundary.CONSTANT else {}
    return np.pad(np.arange(extent), pad, PAD_MODES[boundary], **fill).tolist()


def test_output_extent_counts_the_places_where_the_window_fits():
    for size, stride, dilation, lo, hi, extent in product(
        range(1, 5), range(1, 5), range(1, 4), range(4), range(4), range(13)
    ):
        window = Window(size, stride, dilation, lo, hi)
        fits = [o for o in range(30) if extent and all(-lo <= tap < extent + hi for tap in taps(window, o))]
        assert window.output_extent(extent) == len(fits), (window, extent)


def test_output_extent_of_partial_windows_counts_up_to_the_first_that_meets_the_edge():
    for size, stride, extent in product(range(1, 7), range(1, 8), range(1, 20)):
        window = Window(size, stride, partial=True)
        count = 1
        while (count - 1) * stride + size < extent and count * stride < extent:
            count += 1
        assert window.output_extent(extent) == count, (window, extent)
        assert Window(size, stride, partial=True).output_extent(0) == 0


def test_same_keeps_the_extent_at_stride_one_with_the_smaller_half_before():
    for size, stride, dilation, extent in product(range(1, 8), range(1, 5), range(1, 5), range(1, 20)):
        window = Window.same(size, stride, dilation)
        assert window.output_extent(extent) == -(-extent // stride)
        assert window.pad_lo + window.pad_hi == dilation * (size - 1)
        assert window.pad_hi - window.pad_lo in (0, 1)


@given(PADDED | PARTIAL | SAME, st.integers(0, 20), st.integers(1, 6))
def test_reach_runs_from_the_first_tap_to_the_last(window, start, length):
    listed = [tap for o in range(start, start + length) for tap in taps(window, o)]
    assert window.reach(Interval(start, start + length)) == Interval(min(listed), max(listed) + 1)
    assert window.span == max(taps(window, 0)) - min(taps(window, 0)) + 1


@given(PADDED | PARTIAL | SAME, st.integers(1, 12), st.sampled_from(Boundary), st.data())
def test_pull_reads_what_the_reach_is_made_of(window, extent, boundary, data):
    count = window.output_extent(extent)
    if not count:
        return
    start = data.draw(st.integers(0, count - 1))
    output = Interval(start, data.draw(st.integers(start + 1, count)))
    pull = window.pull(output, extent, boundary)
    lined = sources_by_numpy(boundary, extent, 60)
    expected = [lined[p + 60] for p in range(pull.reach.start, pull.reach.stop)]
    assert pull.reach == window.reach(output)
    assert pull.read.start >= 0
    assert pull.read.stop <= extent
    padding = dict(pull.padding(boundary))
    assert all(s is None or pull.read.start <= s < pull.read.stop for s in padding.values())
    padded = {p: -1 if s is None else s for p, s in padding.items()}
    assert padded | {p: p for p in range(max(0, pull.reach.start), min(extent, pull.reach.stop))} == dict(
        enumerate(expected, pull.reach.start)
    )
    assert pull.is_padded == any(not 0 <= p < extent for p in range(pull.reach.start, pull.reach.stop))


@given(PADDED | PARTIAL | SAME, st.integers(1, 12), st.integers(0, 8), st.integers(1, 5))
def test_real_taps_counts_taps_on_the_map(window, extent, start, length):
    counted = [sum(0 <= tap < extent for tap in taps(window, o)) for o in range(start, start + length)]
    assert window.real_taps(Interval(start, start + length), extent) == counted


@given(st.lists(PADDED | PARTIAL | SAME, max_size=4), st.integers(0, 5))
def test_compose_reaches_as_far_as_layer_after_layer(windows, output):
    positions = {output}
    for window in reversed(windows):
        positions = {tap for o in positions for tap in taps(window, o)}
    composed = compose(windows)
    assert composed.reach(Interval(output, output + 1)) == Interval(min(positions), max(positions) + 1)
    assert composed.stride == np.prod([w.stride for w in windows], dtype=int)


@pytest.mark.parametrize("boundary", Boundary)
@pytest.mark.parametrize("extent", [1, 2, 3, 4, 7])
def test_source_is_numpys_pad_also_where_the_pad_is_wider_than_the_map(boundary, extent):
    pad = 3 * extent + 2
    ours = [boundary.source(p, extent) for p in range(-pad, extent + pad)]
    assert [-1 if s is None else s for s in ours] == sources_by_numpy(boundary, extent, pad)


@pytest.mark.parametrize("boundary", Boundary)
def test_cover_is_exactly_the_hull_of_the_sources(boundary):
    for extent, start, length in product(range(1, 7), range(-20, 20), range(1, 24)):
        reach = Interval(start, start + length)
        found = [s for p in range(start, start + length) if (s := boundary.source(p, extent)) is not None]
        cover = boundary.cover(reach, extent)
        if found:
            assert cover == Interval(min(found), max(found) + 1), (extent, reach)
        else:
            assert len(cover) == 0, (extent, reach)


def test_cover_of_a_reach_wide_as_a_planet_is_found_at_once():
    for boundary in Boundary:
        assert boundary.cover(Interval(-(10**12), 10**12), 5) == Interval(0, 5)


@pytest.mark.parametrize(
    ("a", "b", "joined", "shared"),
    [
        ((2, 4), (7, 9), (2, 9), 0),
        ((2, 7), (4, 9), (2, 9), 3),
        ((2, 9), (4, 5), (2, 9), 1),
        ((2, 4), (9, 9), (2, 4), 0),  # an empty one counts for nothing
        ((9, 3), (2, 4), (2, 4), 0),  # a reversed one is empty
    ],
)
def test_intervals_join_and_meet(a, b, joined, shared):
    a, b = Interval(*a), Interval(*b)
    assert a.hull(b) == b.hull(a) == Interval(*joined)
    assert len(a.intersect(b)) == len(b.intersect(a)) == shared


def test_an_interval_is_a_slice_of_its_frame():
    line = np.arange(100)
    frame = Interval(30, 60)
    assert line[30:60][Interval(41, 44).within(frame)].tolist() == [41, 42, 43]
    assert str(frame) == "[30, 60)"
    assert len(Interval(5, 2)) == 0


def test_regions_join_meet_and_count():
    a, b = (Interval(0, 3), Interval(5, 9)), (Interval(2, 4), Interval(0, 6))
    nothing = (Interval(0, 3), Interval(4, 4))
    assert hull(a, b) == (Interval(0, 4), Interval(0, 9))
    assert intersect(a, b) == (Interval(2, 3), Interval(5, 6))
    assert hull(a, nothing) == hull(nothing, a) == a  # not the hull of the axes that do hold something
    assert (pixels(a), pixels(nothing), is_empty(nothing), is_empty(a)) == (12, 0, True, False)
    assert whole((3, 4)) == (Interval(0, 3), Interval(0, 4))


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"stride": 0}, {"dilation": 0}, {"pad_lo": -1}, {"pad_hi": -1}, {"size": -3}],
)
def test_a_window_refuses_what_is_none(wrong):
    with pytest.raises(ValueError, match="at least 1 and no negative pad"):
        Window(**wrong)


@pytest.mark.parametrize("pads", [{"pad_lo": 1}, {"pad_hi": 1}])
def test_partial_and_padded_are_not_combined(pads):
    with pytest.raises(ValueError, match="takes no pad"):
        Window(3, partial=True, **pads)
