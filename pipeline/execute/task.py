"""One task: read a region and its halo, run the stack tile by tile, write whole write units."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Region, is_empty, pixels
from pipeline.grid import tiles
from pipeline.kernels import kernel_for
from pipeline.planning import ImagePlan
from pipeline.storage.output import write


@dataclass(frozen=True)
class Done:
    """What a finished task tells: its block, input pixels read and maps' range, for the report."""

    image: int
    block: int
    seconds: float
    bytes_read: int
    bytes_written: int
    ranges: tuple[tuple[float, float], ...]
    """The least and greatest value of each kept map in this block, (inf, −inf) where there is none."""


@dataclass(frozen=True)
class Failed:
    """What a failed task leaves: which it was and why."""

    image: int
    block: int
    reason: str


Outcome = Done | Failed


def run_task(plan: ImagePlan, image: int, block: int) -> Done:
    """Make one block of one image; may run anywhere, as often as it must."""
    started = time.perf_counter()
    regions = plan.grid.regions(plan.grid.index(block))
    walk = plan.stack.walk(plan.wanted(regions), plan.extents)
    raw = plan.source.read(walk.read)
    maps, ranges = compute(plan, raw, walk.read, regions)
    taken = raw.nbytes
    del raw
    given = 0
    for kept, region, stored in zip(plan.kept, regions, maps, strict=True):
        if stored.size:
            write(plan.store, kept.array, region, stored)
            given += stored.nbytes
    return Done(image, block, time.perf_counter() - started, taken, given, ranges)


def compute(
    plan: ImagePlan, raw: NDArray[np.generic], have: Region, regions: tuple[Region, ...]
) -> tuple[list[NDArray[np.generic]], tuple[tuple[float, float], ...]]:
    """Return the stored numbers of each kept map over its region, and the maps' ranges, from raw pixels of ``have``."""
    operations = plan.stack.operations
    kernels = [kernel_for(o, c.backend) for o, c in zip(operations, plan.choices, strict=True)]
    encodings = [kept.array.encoding for kept in plan.kept]
    outputs = [
        np.empty(
            (len(operations[k.place].maps), *((len(i) for i in r) if not is_empty(r) else (0, 0))),
            k.array.encoding.dtype,
        )
        for k, r in zip(plan.kept, regions, strict=True)
    ]
    ranges = [(np.inf, -np.inf)] * len(outputs)
    for tile in tiles(plan.grid.maps, regions, plan.tile):
        wanted = plan.wanted(tile)
        walk = plan.stack.walk(wanted, plan.extents)
        rows, columns = (i.within(h) for i, h in zip(walk.read, have, strict=True))
        block = plan.scale.to_map(raw[:, rows, columns])
        made = plan.stack.run(block, walk, wanted, plan.extents, kernels)
        for place, (kept, region, part) in enumerate(zip(plan.kept, regions, tile, strict=True)):
            if not pixels(part) or is_empty(part):
                continue
            values = made[kept.place].astype(np.float32, copy=False)
            at = tuple(i.within(r) for i, r in zip(part, region, strict=True))
            outputs[place][:, at[0], at[1]] = encodings[place].encode(values)
            low, high = ranges[place]
            ranges[place] = (
                float(np.fmin(low, np.fmin.reduce(values, None))),
                float(np.fmax(high, np.fmax.reduce(values, None))),
            )
    return outputs, tuple(ranges)
