"""What is begun and not yet sent off, kept small: work is taken from the feed when little is left."""

import time
from collections.abc import Mapping, Sequence

from pipeline.execute.feed import Feed, Work
from pipeline.execute.ranges import MOST, Blocks, Ranges
from pipeline.execute.task import Done, Outcome
from pipeline.geometry import Interval

BATCH = 0.5
"""Seconds of work that a future should carry: short tasks go together, a future costs some 5 ms of processor time."""

LOT = 32
"""Images that are looked at, at the most, before the workers get what there is of them."""

LONG = 0.2
"""Seconds after which no further image of a lot is looked at: a bucket may be slow."""


class Stock:
    """The blocks that wait for workers, in batches of about `BATCH` seconds by what tasks have taken so far."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._blocks = Blocks()
        self._ranges = Ranges()
        self._more = True
        """Whether there may be more in the feed."""
        self._pace: float | None = None
        """Seconds a task, from the forecast until there is something to learn from."""

    def __len__(self) -> int:
        return len(self._ranges)

    def fill(self, window: int) -> bool:
        """Look at a lot of images, unless there is enough for twice ``window`` batches; say whether there were any."""
        if not self._more or len(self) >= 2 * window * self._size:
            return False
        blocks, began, looked = Interval(0, 0), time.monotonic(), 0
        while looked < LOT and len(blocks) < window * self._size and time.monotonic() - began < LONG:
            self._more = self._feed.left
            if not self._more:
                break
            looked += 1
            if work := self._feed.look():
                self._pace = self._pace or max(1e-3, work.seconds)
                added = self._blocks.add(work)
                blocks = Interval(blocks.start, added.stop) if len(blocks) else added
        self._ranges.add(blocks)
        return looked > 0

    def join(self, threads: Mapping[str, int]) -> None:
        """Learn which workers there are, and their threads."""
        self._ranges.join(threads)

    def take(self, worker: str, *, idle: bool) -> Interval:
        """Return a batch for a worker, or an empty one; what is another's only if it is ``idle``."""
        return self._ranges.take(worker, self._size, more=self._more, idle=idle)

    def works(self, batch: Interval) -> list[Work]:
        """Return the work that a batch is."""
        return [Work(work.number, work.plan, blocks) for work, blocks in self._blocks.cut(batch)]

    def seconds(self, works: Sequence[Work]) -> float:
        """Return how long work should take: by its forecast or by what tasks have taken, whichever is more."""
        return sum(max(work.seconds, self._pace or 0.0) * len(work.blocks) for work in works)

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from outcomes how long tasks take."""
        seconds = [outcome.seconds for outcome in outcomes if isinstance(outcome, Done)]
        if seconds:
            learned = sum(seconds) / len(seconds)
            self._pace = learned if self._pace is None else self._pace + (learned - self._pace) / 2

    def end(self, outcome: Outcome) -> None:
        """Forget a block; whoever has heard of its outcome may have put more into the feed."""
        self._blocks.end(outcome.image)
        self._more = True

    @property
    def _size(self) -> float:
        """Tasks that a batch should have."""
        return min(float(MOST), max(1.0, BATCH / max(self._pace or BATCH, 1e-9)))
