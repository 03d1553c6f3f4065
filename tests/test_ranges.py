"""Ranges of the walk: every block goes to somebody exactly once, whoever comes and goes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.execute.ranges import MOST, SHARE, Blocks, Ranges

WORKERS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_blocks_are_numbered_through_all_images(counts):
    blocks = Blocks(counts)
    listed = [(image, block) for image, count in enumerate(counts) for block in range(count)]
    assert [blocks.place(number) for number in range(len(blocks))] == listed


@given(st.integers(0, 200), st.lists(WORKERS, min_size=1, max_size=5), st.randoms(use_true_random=False), st.data())
def test_every_block_is_given_out_once(total, crews, random, data):
    ranges = Ranges(total)
    given_out = np.zeros(total, int)

    def take(worker):
        batch = ranges.take(worker, data.draw(st.sampled_from([0.01, 1, 3.7, 1e9])))
        assert len(batch) <= MOST
        given_out[batch.start : batch.stop] += 1
        return len(batch)

    for crew in crews:
        ranges.join(crew)
        for _ in range(5 if crew else 0):
            take(random.choice(sorted(crew)))
    while take("a"):
        pass
    assert len(ranges) == 0
    assert (given_out == 1).all()


def test_workers_share_by_threads_and_go_through_their_own_from_the_front():
    ranges = Ranges(120)
    ranges.join({"a": 1, "b": 2})
    assert [ranges.take(w, 1).start for w in "aabba"] == [0, 1, 40, 41, 2]


def test_who_has_nothing_left_takes_the_back_half_of_the_largest():
    ranges = Ranges(40)
    ranges.join({"a": 1, "b": 1})
    for _ in range(20):
        ranges.take("a", 1)
    assert ranges.take("a", 1).start == 30
    assert ranges.take("b", 1).start == 20


def test_what_a_lost_worker_had_goes_to_one_that_came():
    ranges = Ranges(40)
    ranges.join({"a": 1, "b": 1})
    for _ in range(3):
        ranges.take("a", 1)
    ranges.join({"a": 1, "c": 1})
    assert [ranges.take("c", 1).start for _ in range(20)] == list(range(20, 40))
    assert ranges.take("c", 1).start > 3  # then it helps the other


def test_batches_shrink_so_that_all_end_together():
    ranges = Ranges(2 * 64)
    ranges.join({"a": 1, "b": 1})
    sizes = []
    while len(batch := ranges.take("a", 1e9)):
        sizes.append(len(batch))
        ranges.take("b", 1e9)
    assert sizes[0] == 64 // SHARE
    assert sizes[-1] == 1
    assert len(sizes) >= SHARE
