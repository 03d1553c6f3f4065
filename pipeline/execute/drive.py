"""Keeps every worker of a cluster supplied, gives outcomes as they come, and bounds all waiting."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, KilledWorker

from pipeline.errors import AGAIN, RunError, explain
from pipeline.execute.feed import Feed
from pipeline.execute.fetch import Fetch
from pipeline.execute.ranges import AHEAD
from pipeline.execute.roster import Roster
from pipeline.execute.stock import Stock
from pipeline.execute.task import Failed, Outcome
from pipeline.geometry import Interval

LAG = 0.2
"""Seconds that outcomes may wait on their worker, to be fetched several together: a fetch costs as much as a future."""

LOOK = 1.0
"""Seconds between two looks at which workers there are."""

DRAIN = 30.0
"""Seconds that an interrupted run waits for the tasks under way."""

LATE = 20.0
"""Times its forecast that a batch may take before its worker counts as hanging."""

LEAST = 120.0
"""Seconds that a batch may take in any case: kernels compile, and storage has deadlines of its own."""

TRIES = 2
"""Workers that may hang with a batch before its blocks are tried one at a time."""

ANY, ALONE = "", "alone"
"""Instead of a worker's address: whichever, and whichever for the one suspect at a time."""


@dataclass
class Sent:
    """A batch on its way: to which worker, how long it should take, and since when it could have been at work."""

    worker: str
    batch: Interval
    tries: int
    limit: float
    began: float | None = None


class Drive:
    """Keeps every worker supplied from its own ranges, and gives outcomes as they come.

    Parameters
    ----------
    client
        Of the cluster.
    feed
        What there is to do; more is taken when little is left.
    submit
        Sends works off under a key, and gives the future.
    stop
        Says when to send off no more.
    """

    def __init__(self, client: Client, feed: Feed, submit: Callable[..., Any], stop: Callable[[], bool]) -> None:
        self.client = client
        self.stock = Stock(feed)
        self.submit = submit
        self.stop = stop
        self.stopped: float | None = None
        self.roster = Roster(client)
        self.flying: dict[Any, Sent] = {}
        """By their futures, which have not ended."""
        self.waiting: defaultdict[str, int] = defaultdict(int)
        """How many of these each worker has."""
        self.landed: dict[Any, Sent] = {}
        """By their futures, which have ended and whose outcomes are still to be fetched."""
        self.fetch = Fetch(client)
        self.suspects: deque[Interval] = deque()
        """Single blocks of batches whose workers died or hung: one of them at a time is tried."""
        self.told: list[Outcome] = []
        """Of tasks that hang: to be given with the next outcomes."""
        self.sent = count()
        self.ended: SimpleQueue[Any] = SimpleQueue()

    def outcomes(self) -> Iterator[Outcome]:
        """Run everything there is to run; raises `RunError` where nobody is left who could."""
        self._look()
        told = time.monotonic()
        while not (self.stop() and self._drained()):
            filled = self._fill()
            waiting = not self.stopped and (filled or self.suspects or len(self.stock))
            if not (waiting or self.flying or self.landed or self.told):
                return
            for future in self._wait(0 if filled else LAG if self.landed else LOOK):
                self._land(future)
            if not self.stopped and self.suspects and not self.waiting[ALONE]:
                self._submit(self.suspects.popleft(), ALONE)
            if len(self.landed) >= self._window or time.monotonic() - told >= LAG or not self.flying:
                told = time.monotonic()
                for outcome in self._fetch():
                    yield outcome
                    self.stock.end(outcome)
                self._supply_all()
            # After outcomes are taken: a batch that has ended is not late, however long images were looked at.
            if time.monotonic() - self.roster.looked >= LOOK:
                self._look()

    def end(self) -> None:
        """Let the scheduler forget what is on its way, if the run ends before it has landed."""
        for future in (*self.flying, *self.landed):
            future.release()
        self.roster.end()

    def _fill(self) -> bool:
        """Take up a lot of work, and no more at a time, for outcomes wait meanwhile; say whether there was any."""
        filled = not self.stopped and self.stock.fill(max(1, self._window))
        if filled:
            self._supply_together()
        return filled

    def _land(self, future: Any) -> None:
        """Take note that a future has ended."""
        if future in self.flying:
            self.landed[future] = sent = self.flying.pop(future)
            self.waiting[sent.worker] -= 1
            self._supply(sent.worker)
        else:
            self.roster.recover(future)

    def _fetch(self) -> list[Outcome]:
        """Return what the futures tell that have ended, and give them back."""
        outcomes, self.told = self.told, []
        finished = defaultdict[str, list[Any]](list)
        for future, sent in list(self.landed.items()):
            if future.status == "finished":
                finished[sent.worker].append(future)
                continue
            if future.status == "cancelled":
                raise RunError(f"the scheduler was lost or restarted; {AGAIN}")
            if future.status == "error":
                error = future.exception()
                if isinstance(error, KilledWorker) or sent.tries >= TRIES or not self._part():
                    outcomes += self._blame(sent, explain(error))
                else:
                    self._submit(sent.batch, ALONE if sent.worker == ALONE else ANY, sent.tries + 1)
            elif sent.worker not in (ANY, ALONE):  # what it tells went with its worker
                self._submit(sent.batch, tries=sent.tries)
            else:
                continue  # the same, and it is run again
            self._forget(future)

        for future, told in self.fetch.of(finished):
            self._forget(future)
            outcomes += told
        self.stock.learn(outcomes)
        return outcomes

    def _forget(self, future: Any) -> None:
        """Give a future back at once, whoever still holds it, such as the thread of its callback."""
        del self.landed[future]
        future.release()

    def _drained(self) -> bool:
        """Send off no more; say whether enough has been waited for what is under way."""
        self.stopped = self.stopped or time.monotonic()
        return time.monotonic() - self.stopped > DRAIN

    @property
    def _window(self) -> int:
        """Futures that may be on their way at once; as many again may have landed and wait to be fetched."""
        return AHEAD * sum(self.roster.threads.values())

    def _supply_all(self) -> None:
        """Send every worker what it may have."""
        for worker in self.roster.threads:
            self._supply(worker)

    def _supply_together(self) -> None:
        """Supply all in the client's own thread: of what another one sends, all but the first waits there for 10 ms."""

        async def supply() -> None:
            self._supply_all()

        if self.client.status == "running":
            self.client.sync(supply)
        else:
            self._supply_all()  # which says what has become of the client

    def _supply(self, worker: str) -> None:
        threads = self.roster.threads.get(worker, 0)
        while not self.stopped and self.waiting[worker] < AHEAD * threads:
            if len(self.flying) + len(self.landed) >= 2 * self._window:
                return  # until what has landed is fetched
            batch = self.stock.take(worker, idle=self.waiting[worker] < threads)
            if not len(batch):
                return
            self._submit(batch, worker)

    def _submit(self, batch: Interval, worker: str = ANY, tries: int = 0) -> None:
        """Send a batch off, to a worker or to whichever, those that hang aside."""
        where: dict[str, Any] = {}
        if worker not in (ANY, ALONE) or (self.roster.shuns and self.roster.threads):
            named = list(self.roster.threads) if worker in (ANY, ALONE) else [worker]
            where = {"workers": named, "allow_other_workers": not self.roster.shuns}
        works = self.stock.works(batch)
        # By default those of 100 ms are equals to Dask, which runs them in any order: here, in that of the walk.
        future = self.submit(works, f"{batch.start}-{batch.stop}-{next(self.sent)}", fifo_timeout=0, **where)
        self.flying[future] = Sent(worker, batch, tries, max(LEAST, LATE * self.stock.seconds(works)))
        self.waiting[worker] += 1
        future.add_done_callback(self.ended.put)

    def _blame(self, sent: Sent, reason: str) -> list[Outcome]:
        """Handle a batch whose workers died: its blocks are tried one at a time, for others died beside the culprit."""
        if sent.worker == ALONE:
            (work,) = self.stock.works(sent.batch)
            return [Failed(work.number, work.blocks[0], reason)]
        self.suspects.extend(Interval(number, number + 1) for number in range(sent.batch.start, sent.batch.stop))
        return []

    def _part(self) -> bool:
        """Give no more work to workers that are not as this process; say whether there are any."""
        differ = self.roster.part()
        self.stock.join(self.roster.threads)
        return differ

    def _wait(self, timeout: float) -> list[Any]:
        """Return the futures that have ended, after a while none."""
        futures = []
        with suppress(Empty):
            futures.append(self.ended.get(timeout=timeout))
            while True:
                futures.append(self.ended.get_nowait())
        return futures

    def _look(self) -> None:
        """See which workers there are, and supply those that came."""
        there = self.roster.look()
        if self.roster.threads:
            self.stock.join(self.roster.threads)
        # The scheduler would have what was meant for a lost worker wait for it, where it was the last one.
        lost = [f for f, s in self.flying.items() if s.worker not in (ANY, ALONE, *there)]
        for future in lost if there else ():
            if not future.done():
                self._again(future)
        self._give_up()
        self._supply_all()

    def _again(self, future: Any) -> None:
        """Give up on a future that is on its way or has landed, and send its batch to whichever."""
        sent = self.flying.pop(future, None)
        if sent is None:
            sent = self.landed.pop(future)
        else:
            self.waiting[sent.worker] -= 1
        future.release()
        self._submit(sent.batch, tries=sent.tries)

    def _give_up(self) -> None:
        """Give up on workers that have been at a batch for far too long; whoever else there is gets what they had.

        Of those under way only as many count as a worker has threads, the oldest: the others wait for these.
        """
        now, seen = time.monotonic(), defaultdict[str, int](int)
        late = []
        for future, sent in [*self.landed.items(), *self.flying.items()]:
            seen[sent.worker] += future in self.flying
            if seen[sent.worker] <= self.roster.threads.get(sent.worker, 1):
                sent.began = sent.began or now
                if now - sent.began > sent.limit:
                    if future in self.flying and self.roster.waits(future, sent.worker):
                        sent.began = now
                    else:
                        late.append((future, sent))
        for future, sent in late:
            if future in self.flying:
                self._replace(future, sent)
            elif future in self.landed:  # done, by a worker that cannot tell of it any more
                self._again(future)

    def _replace(self, future: Any, sent: Sent) -> None:
        """Take a worker for one that hangs, until the batch that it hangs with has ended there."""
        where = self.roster.hang(future, sent.worker)
        self.stock.join(self.roster.threads)
        if self.flying.pop(future, None):
            self.waiting[sent.worker] -= 1
        else:
            del self.landed[future]
        for other in [f for f, s in [*self.landed.items(), *self.flying.items()] if s.worker == where]:
            self._again(other)
        if sent.worker == ALONE or sent.tries + 1 >= TRIES:
            self.told += self._blame(sent, f"did not end within {sent.limit:.0f} s, on {TRIES + 1} workers")
        else:
            self._submit(sent.batch, tries=sent.tries + 1)
