"""Blocks and tiles own every pixel of every map exactly once."""

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Interval, is_empty
from pipeline.grid import BlockGrid, MapGrid, tiles


def grids(axes):
    def per_axis(low, high):
        return st.tuples(*[st.integers(low, high)] * axes)

    one = st.builds(MapGrid, per_axis(1, 30), per_axis(1, 9), per_axis(1, 5))
    return st.builds(BlockGrid, st.lists(one, min_size=1, max_size=3).map(tuple), per_axis(1, 40), st.integers(0, 9))


GRIDS = st.sampled_from([1, 2]).flatmap(grids)


def slices(region):
    return tuple(slice(i.start, max(i.start, i.stop)) for i in region)


@given(GRIDS)
def test_every_unit_of_every_map_is_owned_by_exactly_one_block(grid):
    seen = [np.zeros(m.extents, int) for m in grid.maps]
    for index in grid:
        for m, count, region in zip(grid.maps, seen, grid.regions(index), strict=True):
            if is_empty(region):
                continue
            count[slices(region)] += 1
            for interval, unit, extent in zip(region, m.units, m.extents, strict=True):
                assert interval.start % unit == 0
                assert interval.stop % unit == 0 or interval.stop == extent
                assert 0 <= interval.start < interval.stop <= extent
    assert all((count == 1).all() for count in seen)


@given(GRIDS)
def test_block_of_names_the_block_that_owns_a_pixel(grid):
    for place, m in enumerate(grid.maps):
        for position in product(*(sorted({0, n // 2, n - 1}) for n in m.extents)):
            region = grid.regions(m.block_of(position, grid.step))[place]
            assert all(i.start <= p < i.stop for i, p in zip(region, position, strict=True))


@given(GRIDS)
def test_counted_and_enumerated_blocks_agree(grid):
    listed = list(grid)
    band = grid.band or grid.counts[-1]
    by_band = sorted(np.ndindex(*grid.counts), key=lambda index: index[-1] // band)
    assert listed == by_band  # each band in reading order
    assert len(listed) == len(grid) == prod(grid.counts)
    assert [grid.index(number) for number in range(len(grid))] == listed
    assert [grid.number(index) for index in listed] == list(range(len(grid)))
    for axis, count in enumerate(grid.counts):  # no row of blocks at the end owns nothing
        last = [grid.regions(i) for i in listed if i[axis] == count - 1]
        assert any(len(region[axis]) for regions in last for region in regions)


@given(GRIDS, st.data())
def test_tiles_partition_each_region_of_a_block_on_the_global_grid(grid, data):
    step = tuple(data.draw(st.integers(1, 20)) for _ in grid.step)
    index = grid.index(data.draw(st.integers(0, len(grid) - 1)))
    regions = grid.regions(index)
    seen = [np.zeros(m.extents, int) for m in grid.maps]
    for tile in tiles(grid.maps, regions, step):
        assert not all(is_empty(part) for part in tile)
        squares = set()
        for m, count, part in zip(grid.maps, seen, tile, strict=True):
            if is_empty(part):
                continue
            count[slices(part)] += 1
            for corner in (tuple(i.start for i in part), tuple(i.stop - 1 for i in part)):
                squares.add(tuple(p * j // s for p, j, s in zip(corner, m.strides, step, strict=True)))
        assert len(squares) == 1  # the same tile whichever block asks for it
    for region, count in zip(regions, seen, strict=True):
        expected = np.zeros_like(count)
        if not is_empty(region):
            expected[slices(region)] = 1
        np.testing.assert_array_equal(count, expected)


def test_a_coarse_map_beside_a_fine_one_in_numbers():
    fine, coarse = MapGrid((10,), (4,), (1,)), MapGrid((5,), (4,), (2,))
    grid = BlockGrid((fine, coarse), (8,))
    assert grid.counts == (2,)
    assert grid.regions((0,)) == ((Interval(0, 8),), (Interval(0, 4),))
    assert grid.regions((1,)) == ((Interval(8, 10),), (Interval(4, 5),))


def test_a_block_may_own_nothing_of_a_map_whose_unit_is_larger():
    grid = BlockGrid((MapGrid((12,), (3,), (1,)), MapGrid((12,), (12,), (1,))), (3,))
    owned = [tuple(len(r[0]) for r in grid.regions(index)) for index in grid]
    assert owned == [(3, 12), (3, 0), (3, 0), (3, 0)]


def test_no_tile_where_a_block_owns_nothing():
    grid = MapGrid((12,), (12,), (1,))
    assert list(tiles((grid,), ((Interval(12, 12),),), (4,))) == []


@pytest.mark.parametrize("extent", [2**40, 10**15 + 7])
def test_a_vast_grid_is_counted_without_listing_it(extent):
    grid = BlockGrid((MapGrid((extent,), (1024,), (1,)),), (4096,))
    assert grid.counts == (-(-extent // 4096),)
    last = grid.counts[0] - 1
    assert grid.regions(grid.index(last))[0][0] == Interval(last * 4096, extent)
    assert grid.number((last,)) == last
