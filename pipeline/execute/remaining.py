"""What earlier runs have left of an image: the blocks of which any write unit has no record."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Region
from pipeline.planning import ImagePlan, Kept
from pipeline.storage.records import Records, Units
from pipeline.storage.windows import Sights

Task = list[Units]


def remaining(image: ImagePlan, found: Records, sights: Sights) -> ImagePlan:
    """Return the plan of an image with only those blocks that are left to do, and take what the others saw.

    Records are of write units, so the blocks may be others than those of the run that made them. What a task saw holds
    for all that it made: a record that a block overlaps which must be made again is dropped as a whole.
    """
    tasks = list(
        {(task[0].array, task[0].first, task[0].counts): task for task in found.tasks.get(_name(image), [])}.values()
    )
    while tasks:
        done = [_bitmap(kept, tasks) for kept in image.kept]
        left = [block for block in image.blocks if not _covers(image, done, block)]
        again = [np.zeros_like(bitmap) for bitmap in done]
        for block in left:
            for kept, bitmap, region in zip(image.kept, again, _regions(image, block), strict=True):
                bitmap[_box(kept, region)] = True
        marked = {f"{kept.array.group}/0": bitmap for kept, bitmap in zip(image.kept, again, strict=True)}
        good = [task for task in tasks if not any(marked[u.array][u.box[1:]].any() for u in task if u.array in marked)]
        if len(good) == len(tasks):
            arrays = {f"{kept.array.group}/0": kept.array for kept in image.kept}
            for units in (u for task in tasks for u in task):
                if units.sight and units.array in arrays:
                    sights.add(arrays[units.array], units.sight)
            return replace(image, seeing=tuple(left))
        tasks = good
    return image


def _name(image: ImagePlan) -> str:
    return image.kept[0].array.image


def _regions(image: ImagePlan, block: int) -> tuple[Region, ...]:
    return image.grid.regions(image.grid.index(block))


def _box(kept: Kept, region: Region) -> tuple[slice, ...]:
    """Return where the write units of a region of whole ones are on the grid of all."""
    return tuple(slice(i.start // n, -(-i.stop // n)) for i, n in zip(region, kept.array.unit, strict=True))


def _bitmap(kept: Kept, tasks: Sequence[Task]) -> NDArray[np.bool_]:
    """Return which write units (y, x) of a map are recorded."""
    made = np.zeros(kept.array.levels[0].counts, bool)
    for units in (u for task in tasks for u in task if u.array == f"{kept.array.group}/0"):
        made[units.box[1:]] = True
    return made


def _covers(image: ImagePlan, done: Sequence[NDArray[np.bool_]], block: int) -> bool:
    return all(
        bool(bitmap[_box(kept, region)].all())
        for kept, bitmap, region in zip(image.kept, done, _regions(image, block), strict=True)
    )


def planned_units(image: ImagePlan) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return by the path of each kept map's array its grid of write units, and how many of them are to be made."""
    planned: dict[str, tuple[tuple[int, ...], int]] = {}
    marked = [np.full(kept.array.levels[0].counts, image.seeing is None) for kept in image.kept]
    for block in image.blocks if image.seeing is not None else ():
        for kept, bitmap, region in zip(image.kept, marked, _regions(image, block), strict=True):
            bitmap[_box(kept, region)] = True
    for kept, bitmap in zip(image.kept, marked, strict=True):
        channels = len(kept.array.channels)
        planned[f"{kept.array.group}/0"] = ((channels, *kept.array.levels[0].counts), channels * int(bitmap.sum()))
    return planned
