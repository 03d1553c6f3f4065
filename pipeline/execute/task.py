"""One task: read a region and its halo, run the stack tile by tile, write whole write units."""

import time
from dataclasses import dataclass

from pipeline.execute.compute import compute
from pipeline.planning import ImagePlan
from pipeline.storage.cache import ChunkCache
from pipeline.storage.output import write
from pipeline.storage.windows import Sight


@dataclass(frozen=True)
class Done:
    """What a finished task tells: its block, bytes, and what viewers should show, for the report."""

    image: int
    block: int
    seconds: float
    bytes_read: int
    bytes_written: int
    sights: tuple[Sight, ...]
    """What there is to see of each kept map in this block."""


@dataclass(frozen=True)
class Failed:
    """What a failed task leaves: which it was and why."""

    image: int
    block: int
    reason: str


Outcome = Done | Failed


def run_task(plan: ImagePlan, image: int, block: int, cache: ChunkCache) -> Done:
    """Make one block of one image; may run anywhere, as often as it must."""
    started = time.perf_counter()
    index = plan.grid.index(plan.blocks[block])
    regions = plan.grid.regions(index)
    walk = plan.stack.walk(plan.wanted(regions), plan.extents)
    raw = plan.source.read(walk.read, cache, plan.reading.readers(index, walk.read))
    made = compute(plan, raw, walk, regions)
    taken = raw.nbytes
    del raw
    given = 0
    for kept, stored in zip(plan.kept, made, strict=True):
        given += write(plan.store, kept.array, stored.region, stored.units, cache)
    return Done(image, block, time.perf_counter() - started, taken, given, tuple(stored.sight for stored in made))
