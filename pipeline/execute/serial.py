"""The serial executor: one task after another in this process. The twin of the Dask executor, for looking into."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import takewhile

from pipeline.errors import explain
from pipeline.execute.feed import Feed
from pipeline.execute.process import FEW_AT_ONCE
from pipeline.execute.task import Failed, Outcome, run_task
from pipeline.planning import ImagePlan, LevelPlan
from pipeline.storage.cache import ChunkCache
from pipeline.storage.records import Segment, Segments

RETRIES = 2
"""Times a task that raises is run again, so that a passing fault of storage is no failure."""


def run(feed: Feed, segments: Segments, stop: Callable[[], bool] = lambda: False) -> Iterator[Outcome]:
    """Run all work of a feed until told to stop; a task that fails is reported and the rest goes on."""
    cache = ChunkCache(0)
    with FEW_AT_ONCE.held(), closing(segments.begin()) as segment:
        while not stop() and (work := feed.take()):
            for block in takewhile(lambda _: not stop(), work.blocks):
                outcome = attempt(work.plan, work.number, block, cache, segment)
                segment.flush()
                yield outcome


def attempt(plan: ImagePlan | LevelPlan, image: int, block: int, cache: ChunkCache, segment: Segment) -> Outcome:
    """Run a task until it is done, at most ``RETRIES`` times again."""
    left = RETRIES
    while True:
        try:
            return replace(run_task(plan, image, block, cache, segment), retries=RETRIES - left)
        except Exception as error:  # noqa: BLE001 - whatever a task raises, the others go on
            if not left:
                return Failed(image, block, explain(error), RETRIES)
            left -= 1
