"""Which worker gets which blocks: ranges of the walk over all images, one for each worker.

Neighbours in the walk share chunks of the image, so a worker goes through its own range from the front, and its cache
holds what the next block needs. Whoever has nothing left takes half of what another has. Ranges are two numbers each:
the memory they take does not grow with the image.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from pipeline.geometry import Interval

SHARE = 8
"""A batch is at most one part in so many of what its worker has left, so that all end at nearly the same time."""

MOST = 1024
"""Blocks of a batch at the most, whose outcomes come back together."""

NOBODY = ""
"""Who has all the blocks until the first workers come."""


class Blocks:
    """The blocks of all images of a run, numbered through.

    >>> blocks = Blocks([3, 2])
    >>> len(blocks), [blocks.place(n) for n in range(len(blocks))]
    (5, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)])
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, number: int) -> tuple[int, int]:
        """Return the image of a block and the block's number in it."""
        image = bisect_right(self._ends, number)
        return image, number - (self._ends[image - 1] if image else 0)


class Ranges:
    """What is left to do of ``total`` blocks, and whose it is."""

    def __init__(self, total: int) -> None:
        self._left = {NOBODY: Interval(0, total)}
        self._threads: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(len(left) for left in self._left.values())

    def join(self, threads: Mapping[str, int]) -> None:
        """Learn which workers there are, and their threads: the first ones share the blocks, by their threads.

        What a worker had that is gone waits for whoever has nothing left.
        """
        self._threads = dict(threads)
        if not threads or NOBODY not in self._left:
            return
        whole = self._left[NOBODY]
        stops = [len(whole) * n // sum(threads.values()) for n in accumulate(threads.values())]
        self._left = {w: Interval(a, b) for w, a, b in zip(threads, [0, *stops], stops, strict=False)}

    def take(self, worker: str, most: float) -> Interval:
        """Return the next blocks for a worker, at most so many; empty where there are none left for anybody."""
        mine = self._left.get(worker) or self._others()
        size = max(1, min(int(min(most, MOST)), len(mine) // SHARE))
        stop = min(mine.start + size, mine.stop)
        self._left[worker] = Interval(stop, mine.stop)
        return Interval(mine.start, stop)

    def _others(self) -> Interval:
        """Take the back half of the largest range, or all of it where its owner is gone."""
        owner = max(self._left, key=lambda w: len(self._left[w]))
        theirs = self._left[owner]
        if owner not in self._threads:
            del self._left[owner]
            return theirs
        middle = theirs.start + len(theirs) // 2
        self._left[owner] = Interval(theirs.start, middle)
        return Interval(middle, theirs.stop)
