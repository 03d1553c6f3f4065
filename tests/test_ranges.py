"""Ranges of the walk: every block goes to somebody exactly once, whoever comes and goes, and whenever work comes up."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.execute.feed import Feed, Work
from pipeline.execute.ranges import AHEAD, FEW, MOST, SHARE, Blocks, Ranges
from pipeline.geometry import Interval

WORKERS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4))


def some(total, threads=None):
    """Ranges of so many blocks."""
    ranges = Ranges()
    ranges.add(Interval(0, total))
    ranges.join(threads or {})
    return ranges


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_a_batch_is_cut_into_the_works_it_is_of_and_what_has_ended_is_forgotten(counts, data):
    blocks = Blocks()
    numbered = [blocks.add(Work(n, None, [10 * n + b for b in range(count)])) for n, count in enumerate(counts)]
    listed = [(n, 10 * n + b) for n, count in enumerate(counts) for b in range(count)]
    assert [i.start for i in numbered] == np.cumsum([0, *counts])[:-1].tolist()
    start = data.draw(st.integers(0, len(listed)))
    batch = Interval(start, data.draw(st.integers(start, len(listed))))
    cut = [(work.number, block) for work, numbers in blocks.cut(batch) for block in numbers]
    assert cut == listed[batch.start : batch.stop]
    for ended, (number, _) in enumerate(data.draw(st.permutations(listed)), 1):
        blocks.end(number)
        assert len(blocks) <= len(listed) - ended
    assert len(blocks) == 0
    more = blocks.add(Work(99, None, [7]))
    assert [(w.number, list(numbers)) for w, numbers in blocks.cut(more)] == [(99, [7])]


@given(
    st.lists(st.integers(0, 60), max_size=4),
    st.lists(WORKERS, min_size=1, max_size=5),
    st.randoms(use_true_random=False),
    st.data(),
)
def test_every_block_is_given_out_once(lots, crews, random, data):
    ranges = Ranges()
    given_out = np.zeros(sum(lots), int)
    ends = np.cumsum([0, *lots]).tolist()
    coming = [Interval(a, b) for a, b in pairwise(ends)]

    def take(worker):
        more = data.draw(st.booleans())
        batch = ranges.take(worker, data.draw(st.sampled_from([0.01, 1, 3.7, 1e9])), more=more)
        assert len(batch) <= MOST
        given_out[batch.start : batch.stop] += 1
        return len(batch)

    for crew in crews:
        if coming and data.draw(st.booleans()):
            ranges.add(coming.pop(0))
        ranges.join(crew)
        for _ in range(5 if crew else 0):
            take(random.choice(sorted(crew)))
    for lot in coming:
        ranges.add(lot)
    while take("a"):
        pass
    assert len(ranges) == 0
    assert (given_out == 1).all()


def test_workers_share_by_threads_and_go_through_their_own_from_the_front():
    ranges = some(120, {"a": 1, "b": 2})
    assert [ranges.take(w, 1).start for w in "aabba"] == [0, 1, 40, 41, 2]
    ranges.add(Interval(120, 150))
    taken = [ranges.take("a", 1000, more=True) for _ in range(3)]
    # Its own; and then of b, which has [42, 120) and [130, 150), the back half.
    assert taken == [Interval(3, 40), Interval(120, 130), Interval(91, 120)]


def test_who_has_nothing_left_takes_the_back_half_of_the_largest():
    ranges = some(40, {"a": 1, "b": 1})
    for _ in range(20):
        ranges.take("a", 1)
    assert ranges.take("a", 1).start == 30
    assert ranges.take("b", 1).start == 20


def test_who_has_still_something_to_do_takes_nothing_of_others():
    ranges = some(40, {"a": 1, "b": 1})
    for _ in range(20):
        ranges.take("a", 1, idle=False)
    assert not len(ranges.take("a", 1, idle=False))
    assert not len(ranges.take("c", 1, idle=False))
    assert ranges.take("a", 1).start == 30


def test_what_a_lost_worker_had_goes_to_one_that_came():
    ranges = some(40, {"a": 1, "b": 1})
    for _ in range(3):
        ranges.take("a", 1)
    ranges.join({"a": 1, "c": 1})
    assert [ranges.take("c", 1).start for _ in range(20)] == list(range(20, 40))
    assert ranges.take("c", 1).start > 3  # then it helps the other


def test_batches_shrink_so_that_all_end_together_but_not_while_more_is_to_come():
    ranges = some(2 * 64, {"a": 1, "b": 1})
    sizes = []
    while len(batch := ranges.take("a", 24)):
        sizes.append(len(batch))
        ranges.take("b", 24)
    assert sizes[:2] == [24, (64 - 24) // SHARE]
    assert sizes[-1] == 1
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) > SHARE
    assert len(some(128, {"a": 1}).take("a", 50, more=True)) == 50
    assert len(some(128, {"a": 4}).take("a", 15)) == 15


def test_few_blocks_that_are_sent_at_once_in_any_case_go_as_one_batch_a_thread():
    short = some(2 * FEW, {"a": 1, "b": 1})
    assert [len(short.take(worker, FEW / AHEAD)) for worker in "abab"] == [FEW, FEW, 0, 0]
    ranges = some(10, {"a": 3})
    assert [len(ranges.take("a", 2)) for _ in range(4)] == [3, 3, 4, 0]
    longer = some(FEW, {"a": 1})
    assert [len(longer.take("a", FEW / AHEAD - 1)) for _ in range(3)] == [1, 1, 1]
    more = some(FEW + 1, {"a": 1})
    assert [len(more.take("a", 1e9)) for _ in range(3)] == [2, 1, 1]
    later = some(FEW, {"a": 1})
    assert len(later.take("a", 1)) == 1
    assert len(later.take("a", 1e9)) == 1  # not the first that it gets


def test_work_that_comes_up_is_given_before_what_nobody_has_looked_at():
    looked = []

    def works():
        for number in range(3):
            looked.append(number)
            yield Work(number, None, [0])

    feed = Feed(works())
    first = feed.take()
    assert (first.number, looked) == (0, [0])
    feed.add(Work(9, None, [0]))
    feed.put_back(first)
    assert [feed.take().number for _ in range(4)] == [0, 9, 1, 2]
    assert feed.take() is None
    feed.add(Work(10, None, [0]))
    assert feed.take().number == 10


def test_work_that_comes_up_when_the_last_is_looked_at_is_not_passed_over():
    def works():
        feed.add(Work(9, None, [0]))  # as an image of which only levels of its pyramid are left
        yield from ()

    feed = Feed(works())
    assert feed.take().number == 9
    assert feed.take() is None
