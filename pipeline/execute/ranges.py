"""Which worker gets which blocks: ranges of the walk over all images, some for each worker.

Neighbours in the walk share chunks of the image, so a worker goes through its own range from the front, and its cache
holds what the next block needs. Whoever has nothing left takes half of what another has. Ranges are two numbers each,
and only work that is begun and not ended is known: the memory they take grows neither with an image nor with a batch.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from pipeline.execute.feed import Work
from pipeline.geometry import Interval

AHEAD = 2
"""Futures per worker thread: one that runs and one that waits."""

SHARE = 2
"""When no more work is to come, a batch is at most one part in so many of what a thread of its worker has left.

So all end at nearly the same time. With more parts short runs have more futures than that saves.
"""

FEW = 4
"""Blocks that go as one batch, where a thread gets no more of a run and by the forecast all of them at once.

In parts a run of 0.2 s takes 0.22 s. They are few, since nothing is heard of a batch until all of it has ended, and
nobody else can take a part of it: a forecast may be wrong.
"""

MOST = 1024
"""Blocks of a batch at the most, whose outcomes come back together."""

NOBODY = ""
"""Who has all the blocks until the first workers come."""


class Blocks:
    """The blocks of the work that is begun, numbered through in the order in which it came; forgotten when it ends.

    >>> from pipeline.execute.feed import Work
    >>> blocks = Blocks()
    >>> added = [blocks.add(Work(7, None, [4, 5, 6])), blocks.add(Work(8, None, range(2)))]
    >>> [(work.number, list(numbers)) for work, numbers in blocks.cut(Interval(2, 5))]
    [(7, [6]), (8, [0, 1])]
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._works: list[Work] = []
        self._end = 0
        self._left: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Work) -> Interval:
        """Take work, and return the numbers of its blocks here."""
        blocks = Interval(self._end, self._end + len(work.blocks))
        if len(blocks):
            self._starts.append(blocks.start)
            self._works.append(work)
            self._left[work.number] = len(blocks)
            self._end = blocks.stop
        return blocks

    def cut(self, batch: Interval) -> Iterator[tuple[Work, Sequence[int]]]:
        """Give the works that a batch is of, and which of their blocks, by the works' own numbers."""
        at = batch.start
        while at < batch.stop:
            place = bisect_right(self._starts, at) - 1
            work, first = self._works[place], self._starts[place]
            stop = min(batch.stop, first + len(work.blocks))
            yield work, work.blocks[at - first : stop - first]
            at = stop

    def end(self, number: int) -> None:
        """Count a block of a work as ended; when all are, the work is forgotten."""
        self._left[number] -= 1
        if not self._left[number]:
            del self._left[number]
            place = next(n for n, work in enumerate(self._works) if work.number == number)
            del self._works[place], self._starts[place]


class Ranges:
    """What is left to do of the blocks that are known, and whose it is."""

    def __init__(self) -> None:
        self._left: dict[str, deque[Interval]] = {}
        self._threads: dict[str, int] = {}
        self._given: Counter[str] = Counter()
        """Batches that each worker has had."""

    def __len__(self) -> int:
        return sum(map(self._has, self._left))

    def _has(self, worker: str) -> int:
        return sum(map(len, self._left.get(worker, ())))

    def join(self, threads: Mapping[str, int]) -> None:
        """Learn which workers there are, and their threads: the first ones share the blocks, by their threads.

        What a worker had that is gone waits for whoever has nothing left.
        """
        self._threads = dict(threads)
        if threads:
            for blocks in self._left.pop(NOBODY, ()):
                self.add(blocks)

    def add(self, blocks: Interval) -> None:
        """Share blocks among the workers, by their threads; each has them after what it has already."""
        threads = self._threads or {NOBODY: 1}
        stops = [blocks.start + len(blocks) * n // sum(threads.values()) for n in accumulate(threads.values())]
        for worker, start, stop in zip(threads, [blocks.start, *stops], stops, strict=False):
            if start < stop:
                self._left.setdefault(worker, deque()).append(Interval(start, stop))

    def take(self, worker: str, most: float, *, more: bool = False, idle: bool = True) -> Interval:
        """Return the next blocks for a worker, at most so many; empty where there are none for it.

        ``more`` says that work is still to come; and ``idle`` that the worker has nothing to do, so that it may take
        what is another's, at the price of chunks that both read.
        """
        if idle and not self._has(worker):
            self._left[worker] = self._others()
        mine = self._left.get(worker)
        if not mine:
            return Interval(0, 0)
        first = mine.popleft()
        size = min(most, MOST)
        if not more:
            size = self._last(worker, size, len(first) + self._has(worker))
        size = max(1, int(size))
        self._given[worker] += 1
        stop = min(first.start + size, first.stop)
        if stop < first.stop:
            mine.appendleft(Interval(stop, first.stop))
        return Interval(first.start, stop)

    def _last(self, worker: str, most: float, left: int) -> float:
        """Return how many go as one of the blocks that a worker has left, when no more are to come."""
        threads = self._threads.get(worker, 1)
        waiting = threads - self._given[worker]  # threads that have had nothing
        if waiting > 0 and left <= min(FEW, AHEAD * most) * waiting:
            return left // waiting
        return min(most, left // threads // SHARE)

    def _others(self) -> deque[Interval]:
        """Take the back half of what the one has who has the most, or all of it where its owner is gone."""
        owner = max(self._left, key=self._has, default=None)
        if owner is None or not self._has(owner):
            return deque()
        if owner not in self._threads:
            return self._left.pop(owner)
        theirs, half = self._left[owner], self._has(owner) // 2
        taken: deque[Interval] = deque()
        while self._has(owner) > half:
            last = theirs.pop()
            keep = max(0, half - self._has(owner))  # of these blocks
            if keep:
                theirs.append(Interval(last.start, last.start + keep))
            taken.appendleft(Interval(last.start + keep, last.stop))
        return taken
