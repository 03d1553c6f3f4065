"""Peaks are those of their definition, whatever the blocks in which they are looked for."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import Interval
from pipeline.sections import Detections
from pipeline.tables import peaks

Rows = list[tuple[int, int, int]]


def brute(maps: np.ndarray, threshold: float, distance: int) -> Rows:
    """The definition, pixel by pixel: (y, x, map), in the order of the table."""
    found = []
    for c, values in enumerate(maps):
        height, width = values.shape
        for y, x in np.argwhere(values >= threshold).tolist():
            around = itertools.product(
                range(max(0, y - distance), min(height, y + distance + 1)),
                range(max(0, x - distance), min(width, x + distance + 1)),
            )
            if not any(values[at] > values[y, x] or (values[at] == values[y, x] and at < (y, x)) for at in around):
                found.append((y, x, c))
    return sorted(found)


@st.composite
def looks(draw: st.DrawFn) -> tuple[np.ndarray, int, float, tuple[list[int], list[int]]]:
    """Maps of few values, so that many are equal, and cuts of them into blocks."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 12)))
    numbers = st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, math.inf, -math.inf, math.nan])
    maps = np.array(draw(st.lists(numbers, min_size=math.prod(shape), max_size=math.prod(shape))), np.float32)
    rows, columns = ([0, *sorted(draw(st.sets(st.integers(1, n), max_size=3)) - {n}), n] for n in shape[1:])
    return maps.reshape(shape), draw(st.integers(1, 4)), draw(st.sampled_from([-1.0, 0.0, 1.0, 2.0])), (rows, columns)


@given(looks())
@settings(max_examples=150, deadline=None)
def test_blocks_with_a_halo_find_the_peaks_of_the_definition(
    look: tuple[np.ndarray, int, float, tuple[list[int], list[int]]],
) -> None:
    maps, distance, threshold, cuts = look
    wanted = Detections(threshold=threshold, distance=distance)
    found: Rows = []
    for along in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
        own = tuple(Interval(a, b) for a, b in along)
        seen = tuple(
            Interval(max(0, i.start - distance), min(i.stop + distance, n))
            for i, n in zip(own, maps.shape[1:], strict=True)
        )
        block = np.ascontiguousarray(maps[:, seen[0].start : seen[0].stop, seen[1].start : seen[1].stop])
        rows = peaks.find(wanted, block, seen, own)
        assert all(row["score"] == maps[row["map"], row["y"], row["x"]] for row in rows)
        found += [(int(row["y"]), int(row["x"]), int(row["map"])) for row in rows]
    assert sorted(found) == brute(maps, threshold, distance)
    for a, b in itertools.combinations(found, 2):
        assert a[2] != b[2] or max(abs(a[0] - b[0]), abs(a[1] - b[1])) > distance


def test_a_top_is_found_between_pixels_where_the_quadratic_function_has_it() -> None:
    y, x = np.mgrid[:9, :9].astype(np.float64)
    for top in ((4.25, 3.5), (3.0, 5.0), (4.0, 3.625)):
        values = 8 - (y - top[0]) ** 2 - 0.5 * (x - top[1]) ** 2 + 0.25 * (y - top[0]) * (x - top[1])
        region = (Interval(0, 9), Interval(0, 9))
        (row,) = peaks.find(
            Detections(threshold=7, distance=3, refine=True), values.astype(np.float32)[None], region, region
        )
        assert (row["y"] + row["dy"], row["x"] + row["dx"]) == pytest.approx(top, abs=1e-5)
    # A ridge has no top, and neither has what meets the edge.
    for values in (np.minimum(y, 4), -x * 1.0):
        found = peaks.find(Detections(threshold=-9, refine=True), values.astype(np.float32)[None], region, region)
        assert len(found)
        assert not found["dy"].any()
        assert not found["dx"].any()


def test_a_saddle_whose_rows_and_columns_both_bend_down_has_no_top() -> None:
    """The diagonal one: there the function that fits rises away from the middle."""
    values = np.array([[-10, 1, 2.9], [1, 3, 1], [2.9, 1.2, -10]], np.float32)
    region = (Interval(0, 3), Interval(0, 3))
    (row,) = peaks.find(Detections(threshold=2.95, refine=True), values[None], region, region)
    assert (row["y"], row["x"], row["dy"], row["dx"]) == (1, 1, 0, 0)
