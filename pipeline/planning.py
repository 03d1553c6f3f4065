"""The plan: for each image its extents, kernels, write units, tasks and tiles, and a forecast of memory and time.

An `ImagePlan` is also what a worker gets: frozen, picklable, with handles to arrays and never the arrays themselves.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.batch import Batch
from pipeline.describe import plan_dict, plan_text
from pipeline.errors import HaloflowError
from pipeline.forecast import PROCESS, TaskCost
from pipeline.geometry import Region
from pipeline.grid import BlockGrid
from pipeline.kept import Kept, block_memory, stored_bytes
from pipeline.pixels import PixelScale
from pipeline.reading import Reading
from pipeline.stack import BoundStack
from pipeline.storage.images import stem
from pipeline.storage.maps import MapArray
from pipeline.storage.place import Place
from pipeline.storage.source import Source

STORE_RATE = 3e8
"""Bytes a second through storage and codec, roughly, for the forecast of time."""


@dataclass(frozen=True)
class ImagePlan:
    """Everything about one image of a run."""

    source: Source
    scale: PixelScale
    stack: BoundStack
    extents: tuple[tuple[int, ...], ...]
    made: tuple[Kept, ...]
    grid: BlockGrid
    task: TaskCost
    store: Place
    cache: int = 0
    """Bytes of decoded chunks that a worker keeps for later tasks."""
    after: BoundStack | None = None
    """The layers from the one on that joins whole maps: they are done at the run's end."""
    slabs: bool = False
    """Whether what it keeps is what a block reads of all planes that lie in the same chunks."""
    background: tuple[NDArray[np.float32], ...] = ()
    """For each map made its values where the image is all fill value; empty where nearly all of it is stored."""
    missing: int | None = 0
    """Chunks, or shards, of the image that are not stored, and so are its fill value; None where that is not known."""
    seeing: tuple[int, ...] | None = None
    """The blocks that see anything but fill value, where the others need not be written; None for all."""

    def of(self, source: Source) -> "ImagePlan":
        """Return this plan for another image of its kind."""
        made = tuple(replace(k, array=replace(k.array, image=source.name)) for k in self.made)
        other = replace(self, source=source, made=made)
        vars(other)["seconds"] = self.seconds  # a forecast that is alike for all takes longer than the rest of a plan
        return other

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the image, a line each."""
        if not self.source.scaled:
            return ()
        return (
            f"its attributes say what its numbers stand for ({self.source.standing_for}), and they are taken as they "
            "are stored: set input.black and input.white to the numbers that mean -1 and +1, or store what they stand "
            "for, as maps of dtype float32 do",
        )

    @property
    def kept(self) -> tuple[Kept, ...]:
        """Of what tasks make what is stored."""
        return tuple(k for k in self.made if k.stored)

    @property
    def pixels(self) -> int:
        """The pixels of the input, those of all planes."""
        return self.source.planes * math.prod(self.extents[0])

    @property
    def count(self) -> int:
        """The number of all blocks: those of one plane after those of another."""
        return self.source.planes * len(self.grid)

    @property
    def blocks(self) -> Sequence[int]:
        """The numbers of the blocks to make in the order of the walk: plane by plane, or slab by slab."""
        return self._all if self.seeing is None else self.seeing

    @cached_property
    def _all(self) -> Sequence[int]:
        return self.reading.walk() if self.slabs else range(self.count)

    def in_order(self, blocks: Sequence[int]) -> tuple[int, ...]:
        """Return blocks that come plane by plane in the order of the walk."""
        if not self.slabs:
            return tuple(blocks)
        plain = len(self.grid)
        return tuple(sorted(blocks, key=lambda n: (self.source.together(n // plain).start, n % plain, n)))

    def at(self, number: int) -> tuple[int, tuple[int, ...]]:
        """Return the plane of a block, and the block's index in the grid."""
        plane, nth = divmod(number, len(self.grid))
        return plane, self.grid.index(nth)

    def where(self, number: int) -> str:
        """Say where in the image a block lies: its plane, and the first input pixel of its square."""
        plane, index = self.at(number)
        first = tuple(a * b for a, b in zip(index, self.grid.step, strict=True))
        return f"{self.source.named(plane)}input pixel {first}"

    @property
    def places(self) -> tuple[int, ...]:
        """The places of the layers whose maps are made."""
        return tuple(kept.place for kept in self.made)

    @property
    def passes(self) -> tuple[range, ...]:
        """The layers that one kernel makes in one pass, where none but the first is padded at an edge."""
        return tuple(
            range(group.first + layers.start, group.first + layers.stop)
            for group in self.task.groups
            for layers in self.stack.part(group.first, group.end).steps(place - group.first for place in self.places)
        )

    def wanted(self, regions: Sequence[Region]) -> dict[int, Region]:
        """Return regions of the maps made by the place of their layer."""
        return dict(zip(self.places, regions, strict=True))

    @cached_property
    def block_memory(self) -> int:
        """The most bytes that one task holds, at the worst of reading, computing and writing."""
        staged = self.cache if self.slabs else self.reading.staged() if self.cache else 0
        return block_memory(self.source, self.stack, self.made, self.extents, self.grid, self.task.held, staged)

    @property
    def peak_memory(self) -> int:
        """The forecast of a worker's peak, in bytes."""
        return PROCESS + self.block_memory + self.cache

    @cached_property
    def reading(self) -> Reading:
        """What the tasks read, and what of it they share."""
        return Reading(self.source, self.stack, self.places, self.extents, self.grid)

    @property
    def bytes_read(self) -> int:
        """Decoded bytes of all chunks that one worker reads; those read twice count twice."""
        read = self.reading.slab_bytes_read() if self.slabs else self.reading.bytes_read(self.cache)
        return round(read * self._seen)

    @property
    def bytes_written(self) -> int:
        """Bytes of all kept maps before compression."""
        sizes = [stored_bytes(k.array, math.prod(level.extents)) for k in self.kept for level in k.array.levels]
        return round(self._seen * self.source.planes * sum(sizes))

    @cached_property
    def seconds(self) -> float:
        """A rough forecast for one worker: compute from one task's work, storage at a fixed rate."""
        return self._seen * self._tasks * self.task.seconds + (self.bytes_read + self.bytes_written) / STORE_RATE

    @property
    def recompute(self) -> float:
        """How much more the layers compute because tiles and tasks overlap, as a factor."""
        plane = sum(o.work * math.prod(e) for o, e in zip(self.stack.operations, self.extents[1:], strict=True))
        whole = self.source.planes * plane
        return max(1.0, self._tasks * self.task.multiplies / whole)

    @property
    def _seen(self) -> float:
        """The part of the blocks that see anything but fill value."""
        return len(self.blocks) / self.count

    @property
    def _tasks(self) -> float:
        """The number of tasks, those at the end counted by what they make."""
        plane = math.prod(max(1.0, e / s) for e, s in zip(self.extents[0], self.grid.step, strict=True))
        return self.source.planes * plane


@dataclass(frozen=True)
class LevelPlan:
    """What a run does at its end for one level of a kept map, made from the level before: a write unit a block."""

    store: Place
    array: MapArray
    level: int

    @property
    def blocks(self) -> Sequence[int]:
        """The numbers of the write units, plane by plane in reading order."""
        return range(self.array.planes * math.prod(self.array.levels[self.level].counts))

    def at(self, block: int) -> tuple[int, tuple[int, int]]:
        """Return the plane of a write unit, and its place (y, x)."""
        counts = self.array.levels[self.level].counts
        plane, number = divmod(block, math.prod(counts))
        return plane, divmod(number, counts[1])

    @property
    def pixels(self) -> int:
        """The pixels of the level, all its channels counted."""
        return self.array.planes * len(self.array.channels) * math.prod(self.array.levels[self.level].extents)

    @property
    def seconds(self) -> float:
        """A rough forecast for one worker: five pixels are read or written for each."""
        return 5 * stored_bytes(self.array, self.pixels // len(self.array.channels)) / STORE_RATE


@dataclass(frozen=True)
class Plan:
    """What a run would do. ``print(plan)`` says it; `pipeline.run` does it; an image is planned when asked for."""

    images: Sequence[ImagePlan]
    store: Place
    memory: int
    config: Mapping[str, Any]
    reads: tuple[Place, ...]
    """Every place the run reads, those of features too: the output may overlap none."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What decides the bits: a run may go on with a store only where this is the same."""

    def attempt(self, number: int) -> ImagePlan | HaloflowError:
        """Return the plan of the image at a place, or why there is none."""
        (made,) = self.attempts([number])
        return made

    def attempts(self, numbers: Iterable[int]) -> Iterator[ImagePlan | HaloflowError]:
        """Give what `attempt` returns for each of some numbers, in their order; a few are opened ahead."""
        return (
            self.images.attempts(numbers) if isinstance(self.images, Batch) else map(self.images.__getitem__, numbers)
        )

    @property
    def places(self) -> Sequence[Place]:
        """Where the images are, those that cannot be run among them."""
        return self.images.places if isinstance(self.images, Batch) else self.reads[: len(self.images)]

    @cached_property
    def inputs(self) -> Mapping[str, str]:
        """The paths of the images by their names in the output, without a look at any."""
        return {stem(str(place)): str(place) for place in self.places}

    @property
    def bad(self) -> tuple[tuple[str, str], ...]:
        """The images of several that cannot be run, and why."""
        bad = self.images.bad if isinstance(self.images, Batch) else ()
        return tuple((str(place), reason) for place, reason in bad)

    @property
    def tasks(self) -> int:
        """The number of all tasks."""
        return sum(len(image.blocks) for image in self.images)

    @property
    def peak_memory(self) -> int:
        """The forecast of a worker's peak, in bytes: that of the image that needs the most."""
        return max(image.peak_memory for image in self.images)

    def __str__(self) -> str:
        return plan_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return plan_dict(self)
