"""The Dask executor: batches of tasks go to ``distributed`` through a bounded window of futures, on any scheduler.

The plan reaches each worker once, by a plugin, which the scheduler also gives to workers that come later; a batch is
two numbers. So memory on client and scheduler does not grow with the image.
"""

import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import zarr
from distributed import Client, KilledWorker, WorkerPlugin, get_worker
from distributed.client import FutureCancelledError

from pipeline.errors import RunError, explain
from pipeline.execute.memory import keep_freed_memory
from pipeline.execute.ranges import Blocks, Ranges
from pipeline.execute.serial import CODECS, attempt
from pipeline.execute.task import Done, Failed, Outcome
from pipeline.geometry import Interval
from pipeline.planning import Images, Plan, Rest
from pipeline.storage.cache import ChunkCache
from pipeline.storage.records import Segments

AHEAD = 2
"""Futures per worker thread: one that runs and one that waits."""

BATCH = 0.1
"""Seconds of work that a future should carry: short tasks go together, a future costs 5 to 15 ms of processor time."""

LAG = 0.2
"""Seconds that outcomes may wait on their worker, to be fetched several together: a fetch costs as much as a future."""

PATIENCE = 5
"""Seconds that a fetch of outcomes may take."""

LOOK = 1.0
"""Seconds between two looks at which workers there are."""

WAIT = 30
"""Seconds without any worker, or without a scheduler, after which a run ends."""

DRAIN = 30.0
"""Seconds that an interrupted run waits for the tasks under way."""

ANY, ALONE = "", "alone"
"""Instead of a worker's address: whichever, and whichever for the one suspect at a time."""

AGAIN = "what was written is recorded: go on with --resume"


class _Hold(WorkerPlugin):  # type: ignore[misc]  # distributed carries no types
    """Keeps a plan on a worker as long as the run lasts, and what its tasks share: a cache and zarr's settings."""

    def __init__(self, run: str, images: Images, cache: int, segments: Segments, *, ours: bool) -> None:
        self.name = f"haloflow-{run}"
        self.images = images
        self.limit = cache
        self.segments = segments
        self.ours = ours

    def setup(self, worker: Any) -> None:
        if worker.nanny:  # a process of its own, not a thread of the user's
            keep_freed_memory()
            if self.ours:
                with suppress(ValueError):  # Ctrl-C reaches all processes of a terminal; this one ends with the run
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.blocks = Blocks([len(image.blocks) for image in self.images])
        self.cache = ChunkCache(self.limit)
        self.segment = self.segments.begin()
        self.settings = zarr.config.set(CODECS)

    def teardown(self, worker: Any) -> None:
        del worker
        self.segment.close()
        self.settings.__exit__(None, None, None)  # a worker may serve others, or be a thread of the user's process


def _work(name: str, start: int, stop: int) -> list[Outcome]:
    """Run the blocks of a batch, one after another; a block that fails leaves the others as they are."""
    held = get_worker().plugins[name]
    places = [held.blocks.place(number) for number in range(start, stop)]
    outcomes = [
        attempt(held.images[image], image, held.images[image].blocks[nth], held.cache, held.segment)
        for image, nth in places
    ]
    held.segment.flush()
    return outcomes


def run(
    plan: Plan | Rest, client: Client, segments: Segments, stop: Callable[[], bool] = lambda: False
) -> Iterator[Outcome]:
    """Run every task of a plan on a cluster, a few futures a worker at a time; gives outcomes as they come.

    Told to ``stop``, it sends off no more, and ends when what is under way has ended.
    """
    run_id = uuid.uuid4().hex
    plugin = _Hold(run_id, plan.images, plan.cache, segments, ours=client.cluster is not None)
    try:
        client.register_plugin(plugin)
        yield from _Drive(client, plugin.name, plan, stop).outcomes()
    except OSError as error:  # distributed's own errors of a lost connection are of this kind
        raise RunError(f"the connection to the scheduler was lost ({explain(error)}); {AGAIN}") from None
    finally:
        # Not there if the run ended before it was sent; gone with the scheduler.
        with suppress(OSError, ValueError):
            if client.status == "running":
                client.unregister_worker_plugin(plugin.name)


class _Drive:
    """Keeps every worker supplied from its own range, and gives outcomes as they come."""

    def __init__(self, client: Client, name: str, plan: Plan | Rest, stop: Callable[[], bool]) -> None:
        self.client = client
        self.stop = stop
        self.stopped: float | None = None
        self.name = name
        self.images = plan.images
        self.blocks = Blocks([len(image.blocks) for image in plan.images])
        self.ranges = Ranges(len(self.blocks))
        # Seconds a task, from the forecast until there is something to learn from.
        self.pace = max(1e-3, plan.images[0].seconds / max(1, len(plan.images[0].blocks)))
        self.threads: dict[str, int] = {}
        self.flying: dict[Any, tuple[str, Interval]] = {}
        self.waiting: dict[str, int] = {}
        self.landed: dict[Any, tuple[str, Interval]] = {}
        self.suspects: deque[Interval] = deque()
        self.sent = count()
        self.ended: SimpleQueue[Any] = SimpleQueue()
        self.looked = self.staffed = time.monotonic()

    def outcomes(self) -> Iterator[Outcome]:
        """Run everything there is to run; raises `RunError` where nobody is left who could."""
        self._look()
        told = time.monotonic()
        while self.flying or self.landed or (not self.stopped and (self.suspects or len(self.ranges))):
            if self.stop() and self._drained():
                return
            for future in self._wait(LAG if self.landed else LOOK):
                if future in self.flying:  # else it was given up
                    self.landed[future] = worker, _ = self.flying.pop(future)
                    self.waiting[worker] -= 1
                    self._supply(worker)
            if not self.stopped and self.suspects and not self.waiting.get(ALONE):
                self._submit(self.suspects.popleft(), ALONE)
            if len(self.landed) >= self._window or time.monotonic() - told >= LAG or not self.flying:
                told = time.monotonic()
                yield from self._fetch()
                for worker in self.threads:
                    self._supply(worker)

    def _fetch(self) -> list[Outcome]:
        """Return what the futures tell that have ended, and give them back."""
        outcomes: list[Outcome] = []
        finished = []
        for future, (worker, batch) in list(self.landed.items()):
            if future.status == "finished":
                finished.append(future)
                continue
            if future.status == "cancelled":
                raise RunError(f"the scheduler was lost or restarted; {AGAIN}")
            if future.status == "error":
                outcomes += self._blame(future, worker, batch)
            elif worker not in (ANY, ALONE):  # what it tells went with its worker
                self._submit(batch)
            else:
                continue  # the same, and it is run again
            self._forget(future)

        outcomes += self._gather(finished)
        seconds = [outcome.seconds for outcome in outcomes if isinstance(outcome, Done)]
        if seconds:
            self.pace += (sum(seconds) / len(seconds) - self.pace) / 2
        return outcomes

    def _gather(self, finished: list[Any]) -> list[Outcome]:
        """Fetch what futures tell, all together."""

        async def gather() -> list[list[Outcome]]:
            told: list[list[Outcome]] = await self.client.gather(finished, asynchronous=True)
            return told

        if not finished:
            return []
        try:
            told = self.client.sync(gather, callback_timeout=PATIENCE)
        except (TimeoutError, KilledWorker, FutureCancelledError):
            return []  # a worker is lost at this moment: again, when that is known
        for future in finished:
            self._forget(future)
        return [outcome for batch in told for outcome in batch]

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
        return AHEAD * sum(self.threads.values())

    def _supply(self, worker: str) -> None:
        while not self.stopped and self.waiting.get(worker, 0) < AHEAD * self.threads.get(worker, 0):
            if len(self.flying) + len(self.landed) >= 2 * self._window:
                return  # until what has landed is fetched
            batch = self.ranges.take(worker, BATCH / max(self.pace, 1e-9))
            if not len(batch):
                return
            self._submit(batch, worker)

    def _submit(self, batch: Interval, worker: str = ANY) -> None:
        """Send a batch off, to a worker or to whichever."""
        where: dict[str, Any] = {} if worker in (ANY, ALONE) else {"workers": [worker], "allow_other_workers": True}
        key = f"{self.name}-{batch.start}-{batch.stop}-{next(self.sent)}"
        future = self.client.submit(_work, self.name, batch.start, batch.stop, key=key, pure=False, **where)
        self.flying[future] = (worker, batch)
        self.waiting[worker] = self.waiting.get(worker, 0) + 1
        future.add_done_callback(self.ended.put)

    def _blame(self, future: Any, worker: str, batch: Interval) -> list[Outcome]:
        """Handle a batch whose workers died: its blocks are tried one at a time, for others died beside the culprit."""
        if worker == ALONE:
            image, nth = self.blocks.place(batch.start)
            return [Failed(image, self.images[image].blocks[nth], explain(future.exception()))]
        self.suspects.extend(Interval(number, number + 1) for number in range(batch.start, batch.stop))
        return []

    def _wait(self, timeout: float) -> list[Any]:
        """Return the futures that have ended, after a while none."""
        futures = []
        with suppress(Empty):
            futures.append(self.ended.get(timeout=timeout))
            while True:
                futures.append(self.ended.get_nowait())
        if time.monotonic() - self.looked >= LOOK:
            self._look()
        return futures

    def _look(self) -> None:
        """See which workers there are, and supply those that came."""
        self.looked = time.monotonic()
        if self.client.status not in ("running", "connecting"):
            raise RunError(f"the scheduler was lost; {AGAIN}")
        self.threads = dict(self.client.nthreads()) if self.client.status == "running" else {}
        if self.threads:
            self.staffed = self.looked
            self.ranges.join(self.threads)
        elif self.looked - self.staffed > WAIT:
            raise RunError(f"there has been no worker for {WAIT} s; {AGAIN}")
        # The scheduler would have what was meant for a lost worker wait for it, where it was the last one.
        known = (ANY, ALONE, *self.threads)
        lost = [future for future, (worker, _) in self.flying.items() if worker not in known]
        for future in lost if self.threads else ():
            if not future.done():
                worker, batch = self.flying.pop(future)
                self.waiting[worker] -= 1
                self._submit(batch)
        for worker in self.threads:
            self._supply(worker)
