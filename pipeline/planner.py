"""The planner: which blocks, groups of layers and tiles make an image in the least time that fits the memory."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.background import background, seeing
from pipeline.describe import size, times
from pipeline.errors import InputError, PlanError, StackError
from pipeline.forecast import PROCESS, Costs, TaskCost, largest_read
from pipeline.geometry import Window
from pipeline.grid import BlockGrid, MapGrid
from pipeline.kept import Kept, OutputSpec, block_memory, stored_bytes
from pipeline.pixels import PixelScale
from pipeline.planning import STORE_RATE, ImagePlan
from pipeline.reading import Reading
from pipeline.stack import BoundStack, Stack
from pipeline.storage.maps import MapArray
from pipeline.storage.source import Source
from pipeline.storage.stored import Listing, Stored, unit

TASK_PIXELS = 2**23
"""Input pixels of one channel that a task grows to at the most, where its write units let it."""

KNOWN = 64
"""Kinds of images whose plans are remembered."""

TASK_SECONDS = 0.02
"""What a task costs beside its pixels: scheduling, opening arrays, the calls to storage."""


class Planner:
    """Plans the images of a run; those of one kind, such as thousands of photographs of one camera, once.

    Parameters
    ----------
    stack, output
        Of the config.
    scale
        Gives what pixel values of a type mean.
    memory
        The bytes that a worker may hold.
    kernel
        The kernel that is forced, if any.
    complete
        Whether an image of which a chunk is missing is refused.
    """

    def __init__(
        self,
        stack: Stack,
        scale: Callable[[str], PixelScale],
        output: OutputSpec,
        memory: int,
        kernel: str | None,
        *,
        complete: bool,
    ) -> None:
        self._stack = stack
        self._scale = scale
        self._output = output
        self._names = tuple(dict.fromkeys([*output.layers, *output.watches]))
        """Of the layers whose maps are made."""
        self._memory = memory
        self._kernel = kernel
        self._complete = complete
        self._ends: tuple[str, ...] | None = None
        """The maps that the first image's layers end with."""
        self._bound: dict[tuple[str, ...], tuple[BoundStack, BoundStack]] = {}
        self._known: OrderedDict[tuple[tuple[Source, str], bool], ImagePlan] = OrderedDict()

    def plan(self, source: Source, listing: Listing) -> ImagePlan:
        """Plan one image, of which such chunks are stored.

        Raises
        ------
        StackError, PlanError
            Where the stack does not fit, and where the memory does not.
        InputError
            Where chunks are missing, or nobody can say that none are, and that is refused.
        """
        if self._complete and listing.missing != 0:
            _refuse(source, listing)
        source = replace(source, whole=listing.missing == 0)
        stored = listing.stored if source.fill is not None else None
        kind = (source.kind, stored is None)
        planned = self._known.get(kind)
        if planned is None:
            planned = self._known[kind] = self._planned(source, sparse=stored is not None)
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(kind)
            # What images of a kind have in common is one thing, which batches of tasks carry once.
            known = planned.source
            planned = planned.of(
                replace(known, name=source.name, path=source.path, array=source.array, digest=source.digest)
            )
        planned = planned if stored is None else _without_empty(planned, stored)
        return planned if listing.missing == 0 else replace(planned, missing=listing.missing)

    def _bind(self, channels: tuple[str, ...]) -> tuple[BoundStack, BoundStack]:
        """Return the stack for such channels, and what of it is made: all up to the last map that somebody wants."""
        if channels not in self._bound:
            if len(self._bound) >= KNOWN:
                self._bound.clear()
            bound = self._stack.bind(channels, self._kernel)
            # What comes after the last map that is made is checked, and then never made.
            last = max(map(self._stack.names.index, self._names))
            self._bound[channels] = bound, bound.part(0, last + 1)
        return self._bound[channels]

    def _planned(self, source: Source, *, sparse: bool) -> ImagePlan:
        """Plan one image, of which few chunks are stored or nearly all."""
        output, memory = self._output, self._memory
        try:
            bound, made = self._bind(source.channels)
            extents = bound.extents(source.extents)
        except StackError as error:
            raise StackError(f"{source.path}: {error}") from None
        kept = tuple(_keep(source, self._stack, bound, extents, name, output) for name in self._names)
        places = tuple(k.place for k in kept)
        extents = extents[: max(places) + 2]
        grids = tuple(
            MapGrid(k.array.extents, k.array.unit, made.strides(k.place), k.watch.halo if k.watch else ()) for k in kept
        )
        room = memory - PROCESS
        scale = self._scale(source.dtype)
        raw = np.dtype(source.dtype).itemsize if scale.line else 0
        lone = tuple(k.stored and k.watch is None for k in kept)
        costs = Costs(made, extents, places, grids, max(room // 4, 2**23), raw, lone)
        # Where few chunks are stored, a larger block would mostly be empty.
        grid, task = _choose_tasks(source, kept, costs, room, 0 if sparse else TASK_PIXELS)
        reading = Reading(source, made, places, extents, grid)
        held = block_memory(source, made, kept, extents, grid, task.held, reading.staged())
        grid, cache = reading.fitted(room - held)
        local, count = self._stack.local, len(bound.operations)
        after = bound.part(local, count) if local < count else None
        if after is not None:
            ends, first = after.operations[-1].maps, self._ends or after.operations[-1].maps
            if ends != first:
                raise StackError(
                    f"{source.path}: its layers end with the maps {', '.join(ends)} and those of the first image with "
                    f"{', '.join(first)}; a table of decisions has the same for all: run the images apart"
                )
            self._ends = first
        planned = ImagePlan(source, scale, made, extents, kept, grid, task, output.store, cache, after=after)
        planned = _by_slabs(planned, memory)
        if memory <= PROCESS:
            raise PlanError(
                f"a worker holds {size(PROCESS)} before it has a single pixel, and may have {size(memory)}: give more "
                "with --memory"
            )
        if planned.peak_memory > memory:
            what = "shard" if output.shards else "chunk"
            raise PlanError(
                f"{source.path}: a worker would need {size(planned.peak_memory)} and may have {size(memory)}; a task "
                f"makes at least one {what} of {times(kept[0].array.unit)} and reads chunks of "
                f"{times(source.chunks)}: make output.{what}s smaller, or give more with --memory"
            )
        return planned


def _refuse(source: Source, listing: Listing) -> None:
    what = "chunks" if source.unit == source.grain else "shards"
    if listing.missing is None:
        raise InputError(f"{source.path}: cannot be asked which of its {what} are stored, and input.missing is 'error'")
    raise InputError(
        f"{source.path}: {listing.missing} of its {listing.objects} {what} are not stored, and input.missing is "
        f"'error'; 'fill' takes them for the fill value"
    )


def _by_slabs(image: ImagePlan, memory: int) -> ImagePlan:
    """Return a plan that decodes chunks of several planes once for all of them, where it fits and is less to read."""
    source = image.source
    if not source.outer or source.along(source.outer[-1].name, source.grain) == 1:
        return image
    thick = max(len(source.together(n)) for n in range(source.outer[-1].extent))
    read, _ = largest_read(
        image.stack, image.places, tuple(k.stored for k in image.made), image.grid, tuple(image.extents)
    )
    # The slab that blocks are made of, and one that is read meanwhile.
    other = replace(image, grid=replace(image.grid, band=0), cache=2 * thick * read * source.pixel_bytes, slabs=True)
    return other if other.peak_memory <= memory and other.bytes_read < image.bytes_read else image


def _without_empty(image: ImagePlan, stored: Stored) -> ImagePlan:
    """Return a plan that leaves out the blocks that see only fill value, where all their maps have one value there."""
    source = image.source
    fill = 0 if source.fill is None else source.fill
    values = [background(image.stack, image.scale, fill, kept.place) for kept in image.made]
    found = tuple(v for v in values if v is not None)
    if len(found) < len(values):
        return image
    if image.kept and image.made[0].array.version == "0.4":  # its fill value is taken
        return replace(image, background=found)
    kept, alike = [], True
    for k, v in zip(image.made, found, strict=True):
        if not k.stored:
            kept.append(k)
            continue
        encoded = k.array.encoding.encode(v)
        bits, counts = np.unique(encoded.view(f"u{encoded.itemsize}"), return_counts=True)  # −0 is not 0
        alike = alike and len(bits) == 1
        kept.append(replace(k, array=replace(k.array, fill=bits[counts.argmax()].view(encoded.dtype).item())))
    seen = image.in_order(seeing(image.reading, stored, unit(source))) if alike else None
    return replace(image, made=tuple(kept), background=found, seeing=seen)


def _choose_tasks(
    source: Source, kept: Sequence[Kept], costs: Costs, room: int, largest: int
) -> tuple[BlockGrid, TaskCost]:
    """Return the blocks of least forecast time: larger ones compute less twice, more of them share out better.

    They are of at most ``largest`` pixels, where the write units let them.
    """
    extents = costs.extents[0]
    step = tuple(max(g.units[axis] * g.strides[axis] for g in costs.grids) for axis in (0, 1))
    tried: list[tuple[float, BlockGrid, TaskCost]] = []
    while True:
        grid = BlockGrid(costs.grids, step)
        index = tuple((n - 1) // 2 for n in grid.counts)
        regions = grid.regions(index)
        task = costs.plan(dict(zip(costs.places, grid.seen(index), strict=True)))
        area = math.prod(min(s, e) for s, e in zip(step, extents, strict=True))
        fits = block_memory(source, costs.stack, kept, costs.extents, grid, task.held) <= room // 2
        if tried and (area > largest or not fits):
            break
        moved = area * source.pixel_bytes + sum(
            stored_bytes(k.array, math.prod(map(len, r))) for k, r in zip(kept, regions, strict=True) if k.stored
        )
        seconds = TASK_SECONDS + task.seconds + moved / STORE_RATE
        # Of two workers each waits half a task for the other at the end, on the average.
        tried.append((seconds / area * (1 + 1 / (source.planes * len(grid))), grid, task))
        # Twice as wide, then twice as high: rows are long where they can be.
        if all(s >= e for s, e in zip(step, extents, strict=True)):
            break
        wider = step[1] <= step[0] and step[1] < extents[1]
        step = (step[0], 2 * step[1]) if wider or step[0] >= extents[0] else (2 * step[0], step[1])
    _, grid, task = min(tried, key=lambda one: one[0])
    return grid, task


def _keep(
    source: Source,
    stack: Stack,
    bound: BoundStack,
    extents: Sequence[tuple[int, ...]],
    name: str,
    output: OutputSpec,
) -> Kept:
    place = stack.names.index(name)
    height, width = extents[place + 1]
    windows = bound.window(place)
    # A unit of about 2048 input pixels a side serves reading, sharing and viewers alike.
    chunks = output.chunks or tuple(max(64, min(1024, 2048 // w.stride)) for w in windows)
    fitted = (min(chunks[0], height), min(chunks[1], width))
    array = MapArray(
        image=source.name,
        layer=name,
        channels=bound.operations[place].maps,
        extents=(height, width),
        chunks=fitted,
        shards=_shards(output, fitted, (height, width)),
        encoding=output.encoding,
        compression=output.compression,
        scale=(source.scale[0] * windows[0].stride, source.scale[1] * windows[1].stride),
        translation=(_centre(source, windows, 0), _centre(source, windows, 1)),
        units=source.units,
        shrink=output.shrink,
        version=output.version,
        # xarray takes the fill value of Zarr's format 2 for missing pixels: only what stands for NaN may be it.
        fill=0 if output.version == "0.5" else output.encoding.missing,
        geo=source.geo,
        outer=source.outer,
    )
    return Kept(place, array, name in output.layers, output.watches.get(name))


def _shards(output: OutputSpec, chunks: tuple[int, int], extents: tuple[int, int]) -> tuple[int, int] | None:
    """Return the pixels of a shard: as many chunks as the config says, and no more than the map has."""
    if output.shards is None or output.chunks is None:
        return None
    y, x = (
        fitted * min(shard // chunk, -(-extent // fitted))
        for shard, chunk, fitted, extent in zip(output.shards, output.chunks, chunks, extents, strict=True)
    )
    return (y, x)


def _centre(source: Source, windows: Sequence[Window], axis: int) -> float:
    """Return where the centre of the first output pixel lies: the middle of its taps, padding included."""
    window = windows[axis]
    return source.translation[axis] + source.scale[axis] * ((window.span - 1) / 2 - window.pad_lo)
