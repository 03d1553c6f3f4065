"""One task: read a region and its halo, run the stack tile by tile, write whole write units."""

import time
from dataclasses import dataclass, replace

from pipeline.errors import writing_to
from pipeline.execute.compute import compute
from pipeline.geometry import is_empty, pixels
from pipeline.given import Raw
from pipeline.planning import ImagePlan, LevelPlan
from pipeline.storage.cache import ChunkCache
from pipeline.storage.output import write
from pipeline.storage.pyramid import make
from pipeline.storage.records import Segment, Units
from pipeline.storage.windows import Sight, looked_at


@dataclass(frozen=True)
class Done:
    """What a finished task tells: its block by its place in the walk, bytes, and what viewers should show."""

    image: int
    block: int
    seconds: float
    bytes_read: int
    bytes_written: int
    sights: tuple[Sight, ...]
    """What there is to see of each kept map in this block."""
    retries: int = 0
    """Times it was run again, since it had raised an error."""


@dataclass(frozen=True)
class Failed:
    """What a failed task leaves: which it was and why."""

    image: int
    block: int
    reason: str
    retries: int = 0


Outcome = Done | Failed


def run_task(plan: ImagePlan | LevelPlan, image: int, block: int, cache: ChunkCache, segment: Segment) -> Done:
    """Make one block of one image, or a write unit of a level, and record it; may run anywhere, as often as it must."""
    if isinstance(plan, LevelPlan):
        return _make_level(plan, image, block, cache, segment)
    return _make_block(plan, image, block, cache, segment)


def _make_level(plan: LevelPlan, image: int, block: int, cache: ChunkCache, segment: Segment) -> Done:
    started = time.perf_counter()
    plane, place = plan.at(block)
    units, read, written = make(plan.store, plan.array, plan.level, place, cache, plane, segment.check)
    with writing_to(plan.store):
        segment.append([units])
    return Done(image, block, time.perf_counter() - started, read, written, ())


def _make_block(plan: ImagePlan, image: int, block: int, cache: ChunkCache, segment: Segment) -> Done:
    started = time.perf_counter()
    cache.fit(plan.cache)
    plane, index = plan.at(block)
    regions = plan.grid.regions(index)
    seen = plan.grid.seen(index)
    walk = plan.stack.walk(plan.wanted(seen), plan.extents)
    readers = plan.reading.readers(index, walk.read)
    raw = Raw(plan.source.parts(walk.read, cache, readers, plane, slabs=plan.slabs), plan.scale)
    made = compute(plan, raw, walk, regions, seen, looked_at(plane, plan.source.planes))
    taken = pixels(walk.read) * plan.source.pixel_bytes
    del raw
    given = 0
    written: list[Units] = []
    for kept, region, one in zip(plan.made, regions, made, strict=True):
        if is_empty(region):
            continue
        units, size = [Units(f"{kept.array.group}/0", *kept.array.box(region, plane), (), ())], 0
        if one.stored:
            units, size = write(plan.store, kept.array, region, one.stored.units, cache, plane, segment.check)
        found = None
        if kept.watch and one.seen:
            found = kept.watch.look(one.seen.maps, one.seen.region, region, kept.array.unit).pack()
        written.append(replace(units[0], sight=one.stored.sight if one.stored else None, found=found))
        written += units[1:]
        given += size
    with writing_to(plan.store):
        segment.append(written)
    sights = tuple(one.stored.sight for one in made if one.stored)
    return Done(image, block, time.perf_counter() - started, taken, given, sights)
