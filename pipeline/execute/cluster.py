"""The Dask executor: batches of tasks go to ``distributed`` through a bounded window of futures, on any scheduler.

A batch carries the plans of its images; the stack, which may hold large features, reaches each worker once, by a
plugin, which the scheduler also gives to workers that come later. So memory on client and scheduler grows neither with
the image nor with the number of images.
"""

import io
import logging
import os
import pickle
import signal
import socket
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Any

from distributed import Client, WorkerPlugin, get_worker
from distributed.client import ClosedClientError

from pipeline.agreement import ANSWER, own, silent, unlike
from pipeline.errors import AGAIN, RunError, explain
from pipeline.execute.drive import Drive
from pipeline.execute.feed import Feed, Work
from pipeline.execute.fetch import PATIENCE
from pipeline.execute.memory import keep_freed_memory
from pipeline.execute.process import DEAF, FEW_AT_ONCE, KEPT_MEMORY
from pipeline.execute.serial import attempt
from pipeline.execute.task import Outcome
from pipeline.planning import ImagePlan, LevelPlan
from pipeline.stack import BoundStack
from pipeline.storage.cache import ChunkCache
from pipeline.storage.records import Segments

TRIES = 3
"""Times that workers are given what a run shares, where one of them goes meanwhile."""

KNOWN = 64
"""Plans that a worker keeps from one batch to the next: what is known of an image's chunks is kept with them."""

IDLE = 60.0
"""Seconds without a batch after which a worker lets go of chunks and plans: for a client that is killed nobody does."""

_STACK = "stack"
"""What stands in a batch for the stack that all workers have."""


def _terminal() -> tuple[str, int]:
    """Return whose Ctrl-C reaches this process: that of its group, on its host."""
    return socket.gethostname(), os.getpgrp()


class _Hold(WorkerPlugin):  # type: ignore[misc]  # distributed carries no types
    """Keeps a stack on a worker as long as the run lasts, and what its tasks share: a cache and zarr's settings."""

    def __init__(self, run: str, stack: BoundStack, segments: Segments, *, ours: bool) -> None:
        self.name = f"haloflow-{run}"
        self.stack = stack
        self.segments = segments
        self.ours = ours
        self.terminal = _terminal()
        self.versions = own()

    def setup(self, worker: Any) -> None:
        self.process = ExitStack()
        if worker.nanny and self.ours:  # a process of its own, which ends with the run
            keep_freed_memory()
            logging.disable(logging.CRITICAL)  # what becomes of the cluster is told by the run's outcome
            with suppress(ValueError):  # Ctrl-C reaches all processes of a terminal
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        elif worker.nanny:  # a process of its own, which serves others afterwards
            self.process.enter_context(KEPT_MEMORY.held())
            if self.terminal == _terminal():  # the run answers Ctrl-C, and the worker is needed to end it in order
                with suppress(ValueError):
                    self.process.enter_context(DEAF.held())
        self.unlike = unlike(own(), self.versions)
        self.forget()
        self.used = time.monotonic()
        self._look(worker.loop)
        self.process.enter_context(FEW_AT_ONCE.held())
        self.segment = self.process.enter_context(closing(self.segments.begin()))

    def teardown(self, worker: Any) -> None:
        worker.loop.remove_timeout(self.next)
        self.forget()  # not there any more when memory is given back
        self.process.close()

    def forget(self) -> None:
        """Keep no plans and no chunks from the batches before."""
        self.plans: OrderedDict[int, ImagePlan | LevelPlan] = OrderedDict()
        self.cache = ChunkCache(0)

    def _look(self, loop: Any) -> None:
        if time.monotonic() - self.used > IDLE:
            self.forget()
        self.next = loop.call_later(IDLE / 2, self._look, loop)

    def plan(self, work: Work) -> ImagePlan | LevelPlan:
        """Return the plan of a work, the one that is here already if it is."""
        plan = self.plans.pop(work.number, work.plan)
        self.plans[work.number] = plan
        while len(self.plans) > KNOWN:
            with suppress(KeyError):  # another thread was faster
                self.plans.popitem(last=False)
        return plan


class _Pickler(pickle.Pickler):
    """Writes a batch, but for the stack that all workers have."""

    def __init__(self, file: io.BytesIO, stack: BoundStack) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.stack = stack

    def persistent_id(self, thing: object) -> str | None:
        return _STACK if thing is self.stack else None


class _Unpickler(pickle.Unpickler):
    """Reads what a `_Pickler` wrote."""

    def __init__(self, data: bytes, stack: BoundStack) -> None:
        super().__init__(io.BytesIO(data))
        self.stack = stack

    def persistent_load(self, name: str) -> BoundStack:
        del name
        return self.stack


def _packed(works: list[Work], stack: BoundStack) -> bytes:
    """Return works as a worker gets them; which blocks there are besides is of no use to it."""
    file = io.BytesIO()
    lean = [
        replace(work, plan=replace(work.plan, seeing=None, after=None)) if isinstance(work.plan, ImagePlan) else work
        for work in works
    ]
    _Pickler(file, stack).dump(lean)
    return file.getvalue()


def _work(name: str, packed: bytes) -> list[Outcome]:
    """Run the blocks of a batch, one after another; a block that fails leaves the others as they are."""
    held = get_worker().plugins[name]
    if held.unlike:  # it came late: the others were asked before
        raise RuntimeError(f"the worker {held.unlike[0]}")
    held.used = time.monotonic()
    works: list[Work] = _Unpickler(packed, held.stack).load()
    outcomes = [
        attempt(held.plan(work), work.number, block, held.cache, held.segment)
        for work in works
        for block in work.blocks
    ]
    held.segment.flush()
    held.used = time.monotonic()
    return outcomes


def run(
    feed: Feed,
    client: Client,
    segments: Segments,
    stop: Callable[[], bool] = lambda: False,
    *,
    ours: bool = False,
) -> Iterator[Outcome]:
    """Run all work of a feed on a cluster, a few futures a worker at a time; gives outcomes as they come.

    Told to ``stop``, it sends off no more, and ends when what is under way has ended. ``ours`` says whether the workers
    end with the run.
    """
    first = feed.take()
    if first is None:
        return
    feed.put_back(first)
    stack = first.plan.stack if isinstance(first.plan, ImagePlan) else BoundStack((), ())
    plugin = _Hold(uuid.uuid4().hex, stack, segments, ours=ours)

    def submit(works: list[Work], key: str, **where: Any) -> Any:
        return client.submit(_work, plugin.name, _packed(works, stack), key=f"{plugin.name}-{key}", pure=False, **where)

    if client.status != "running":
        raise _lost(f"the client is {client.status}")
    drive = Drive(client, feed, submit, stop)
    try:
        _give(client, plugin)
        yield from drive.outcomes()
    except (OSError, ClosedClientError) as error:  # distributed's other errors of a lost connection are OSErrors
        raise _lost(explain(error)) from None
    finally:
        drive.end()
        # Not there if the run ended before it was sent; gone with the scheduler; and a worker that hangs never answers.
        with suppress(OSError, ValueError, TimeoutError):
            if client.status == "running":
                client.sync(_forget, client, plugin.name, callback_timeout=PATIENCE)


def _give(client: Client, plugin: _Hold) -> None:
    """Give all workers what a run shares; `RunError` where one does not take it, and what comes of a lost connection.

    A worker that goes meanwhile, as an adaptive cluster's do, is no lost connection: the others get it anew.
    """
    for left in reversed(range(TRIES)):
        try:
            client.sync(_register, client, plugin, callback_timeout=ANSWER)
        except TimeoutError:
            raise RunError(f"{silent(client)} does not answer; end it, and run again") from None
        except OSError:
            if not left or client.status != "running":
                raise
        else:
            return


async def _register(client: Client, plugin: _Hold) -> None:
    await client.register_plugin(plugin)


def _lost(why: str) -> RunError:
    return RunError(f"the connection to the scheduler was lost ({why}); {AGAIN}")


async def _forget(client: Client, name: str) -> None:
    await client.unregister_worker_plugin(name)
