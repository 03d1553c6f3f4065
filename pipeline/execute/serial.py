"""The serial executor: one task after another in this process. The twin of the Dask executor, for looking into."""

from collections.abc import Iterator

import zarr

from pipeline.execute.task import Failed, Outcome, run_task
from pipeline.forecast import IN_FLIGHT
from pipeline.planning import ImagePlan, Plan
from pipeline.storage.cache import ChunkCache

RETRIES = 2
"""Times a task that raises is run again, so that a passing fault of storage is no failure."""

CODECS = {"async.concurrency": IN_FLIGHT}
"""How zarr shares the processor while tasks run: see `IN_FLIGHT`."""


def run(plan: Plan) -> Iterator[Outcome]:
    """Run every task of a plan; a task that fails is reported and the rest goes on."""
    cache = ChunkCache(plan.cache)
    with zarr.config.set(CODECS):
        for number, image in enumerate(plan.images):
            for block in range(len(image.blocks)):
                yield attempt(image, number, block, cache)


def attempt(plan: ImagePlan, image: int, block: int, cache: ChunkCache) -> Outcome:
    """Run a task until it is done, at most ``RETRIES`` times again."""
    left = RETRIES
    while True:
        try:
            return run_task(plan, image, block, cache)
        except Exception as error:  # noqa: BLE001 - whatever a task raises, the others go on
            if not left:
                return Failed(image, block, explain(error))
            left -= 1


def explain(error: BaseException) -> str:
    """Return an error in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
