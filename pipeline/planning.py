"""The plan: for each image its extents, kernels, write units, tasks and tiles, and a forecast of memory and time.

An `ImagePlan` is also what a worker gets: frozen, picklable, with handles to arrays and never the arrays themselves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.describe import plan_dict, plan_text, size
from pipeline.errors import PlanError, StackError
from pipeline.forecast import IN_FLIGHT, PROCESS, Work, choose_tile, largest_read
from pipeline.geometry import Region, Window
from pipeline.grid import BlockGrid, MapGrid
from pipeline.kernels import Choice, choose
from pipeline.pixels import Encoding, PixelScale
from pipeline.stack import BoundStack, Stack
from pipeline.storage.output import MapArray
from pipeline.storage.source import Source

TASK_PIXELS = 2**24
"""Input pixels of one channel that a task grows to at the most, where its write units let it."""

TASK_SECONDS = 1.0

SLACK = 2**24
"""Bytes of a task beside its arrays: sessions, handles, what the allocator keeps."""

STORE_RATE = 3e8
"""Bytes a second through storage and codec, roughly, for the forecast of time."""

MANY = 8
"""Tasks that an image should be cut into, so that workers have something to share."""


@dataclass(frozen=True)
class Kept:
    """A layer whose map is kept: its place in the stack from 0, and how it is stored."""

    place: int
    array: MapArray


@dataclass(frozen=True)
class ImagePlan:
    """Everything about one image of a run."""

    source: Source
    scale: PixelScale
    stack: BoundStack
    extents: tuple[tuple[int, ...], ...]
    choices: tuple[Choice, ...]
    kept: tuple[Kept, ...]
    grid: BlockGrid
    tile: tuple[int, ...]
    tile_work: Work
    store: str

    @property
    def places(self) -> tuple[int, ...]:
        """The places of the kept layers."""
        return tuple(kept.place for kept in self.kept)

    def wanted(self, regions: Sequence[Region]) -> dict[int, Region]:
        """Return regions of the kept maps by the place of their layer."""
        return dict(zip(self.places, regions, strict=True))

    @property
    def block_memory(self) -> int:
        """The most bytes that one task holds, at the worst of reading, computing and writing."""
        return block_memory(self.source, self.stack, self.kept, self.extents, self.grid, self.tile_work)

    @property
    def peak_memory(self) -> int:
        """The forecast of a worker's peak, in bytes."""
        return PROCESS + self.block_memory

    @property
    def bytes_read(self) -> int:
        """Decoded bytes of all chunks that all tasks read, those read twice counted twice."""
        covered = []
        for axis in (0, 1):
            total = 0
            for number in range(self.grid.counts[axis]):
                regions = [list(m.owned((number,) * 2, self.grid.step)) for m in self.grid.maps]
                for region, m in zip(regions, self.grid.maps, strict=True):
                    region[1 - axis] = m.owned((0, 0), self.grid.step)[1 - axis]
                read = self.stack.walk(self.wanted([tuple(r) for r in regions]), self.extents).read[axis]
                chunk = self.source.chunks[axis]
                total += (-(-read.stop // chunk) - read.start // chunk) * chunk
            covered.append(total)
        return covered[0] * covered[1] * self.source.pixel_bytes

    @property
    def bytes_written(self) -> int:
        """Bytes of all kept maps before compression."""
        return sum(_stored_bytes(k.array, math.prod(k.array.extents)) for k in self.kept)

    @property
    def seconds(self) -> float:
        """A rough forecast for one worker: compute from the tile's work, storage at a fixed rate."""
        tiles = math.prod(max(1.0, e / s) for e, s in zip(self.extents[0], self.tile, strict=True))
        return tiles * self.tile_work.seconds + (self.bytes_read + self.bytes_written) / STORE_RATE

    @property
    def recompute(self) -> float:
        """How much more the layers compute because tiles overlap, as a factor."""
        whole = sum(o.work * math.prod(e) for o, e in zip(self.stack.operations, self.extents[1:], strict=True))
        tile = math.prod(min(s, e) for s, e in zip(self.tile, self.extents[0], strict=True))
        return max(1.0, self.tile_work.multiplies * math.prod(self.extents[0]) / tile / whole)


@dataclass(frozen=True)
class Plan:
    """What a run would do. ``print(plan)`` says it; `pipeline.run` does it."""

    images: tuple[ImagePlan, ...]
    store: str
    memory: int
    config: Mapping[str, Any]
    reads: tuple[str, ...]
    """Every path the run reads, those of features too: the output may overlap none of them."""

    @property
    def tasks(self) -> int:
        """The number of tasks of all images."""
        return sum(len(image.grid) for image in self.images)

    @property
    def peak_memory(self) -> int:
        """The forecast of a worker's peak, in bytes: that of the image that needs the most."""
        return max(image.peak_memory for image in self.images)

    def __str__(self) -> str:
        return plan_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return plan_dict(self)


def block_memory(
    source: Source,
    stack: BoundStack,
    kept: Sequence[Kept],
    extents: Sequence[tuple[int, ...]],
    grid: BlockGrid,
    tile: Work,
) -> int:
    """Return the most bytes that one task of a grid holds."""
    read, made = largest_read(stack, [k.place for k in kept], grid, extents)
    taken = read * source.pixel_bytes
    chunks = (-(-read // math.prod(source.chunks)) + 3) * len(source.channels)
    decoding = min(IN_FLIGHT, chunks) * 2 * source.chunk_bytes
    item = _stored_bytes(kept[0].array, 1) // len(kept[0].array.channels)
    given = made * item
    # A chunk on its way to the store exists as itself, as bytes, shuffled, and compressed.
    encoding = min(IN_FLIGHT * max(math.prod(k.array.chunks) for k in kept) * item, given) * 4
    # What the layers held is not all given back before the maps are written.
    return SLACK + max(taken + decoding, given + tile.scratch + max(taken, encoding))


def _stored_bytes(array: MapArray, pixels: int) -> int:
    size = {"float32": 4, "float16": 2, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1}[array.encoding.dtype]
    return size * len(array.channels) * pixels


def plan_image(
    source: Source,
    stack: Stack,
    scale: PixelScale,
    output: "OutputSpec",
    memory: int,
    kernel: str | None,
) -> ImagePlan:
    """Plan one image; raises `StackError` where the stack does not fit it and `PlanError` where the memory does not."""
    try:
        bound = stack.bind(source.channels)
        extents = bound.extents(source.extents)
    except StackError as error:
        raise StackError(f"{source.path}: {error}") from None
    choices = tuple(choose(operation, kernel) for operation in bound.operations)
    backends = [choice.backend for choice in choices]
    kept = tuple(_keep(source, stack, bound, extents, name, output) for name in output.layers)
    places = [k.place for k in kept]
    grids = tuple(MapGrid(k.array.extents, k.array.chunks, bound.strides(k.place)) for k in kept)
    base = tuple(
        max(unit * stride for unit, stride in axis)
        for axis in (
            [(g.units[0], g.strides[0]) for g in grids],
            [(g.units[1], g.strides[1]) for g in grids],
        )
    )
    room = memory - PROCESS
    tile, tile_work = choose_tile(bound, backends, places, grids, extents, max(room // 3, 2**23))
    grid = BlockGrid(grids, base)
    per_pixel = tile_work.seconds / math.prod(min(t, e) for t, e in zip(tile, extents[0], strict=True))
    while True:
        step = tuple(2 * s if s < e else s for s, e in zip(grid.step, extents[0], strict=True))
        wider = BlockGrid(grids, step)
        area = math.prod(min(s, e) for s, e in zip(step, extents[0], strict=True))
        if step == grid.step or len(wider) < MANY or area > TASK_PIXELS or area * per_pixel > TASK_SECONDS:
            break
        if block_memory(source, bound, kept, extents, wider, tile_work) > room // 2:
            break
        grid = wider
    planned = ImagePlan(source, scale, bound, extents, choices, kept, grid, tile, tile_work, output.store)
    if memory <= PROCESS:
        raise PlanError(
            f"a worker holds {size(PROCESS)} before it has a single pixel, and may have {size(memory)}: give more with "
            "--memory"
        )
    if planned.peak_memory > memory:
        raise PlanError(
            f"{source.path}: a worker would need {size(planned.peak_memory)} and may have {size(memory)}; a task makes "
            f"at least one chunk of {' × '.join(map(str, kept[0].array.chunks))} and reads chunks of "
            f"{' × '.join(map(str, source.chunks))}: make output.chunks smaller, or give more with --memory"
        )
    return planned


@dataclass(frozen=True)
class OutputSpec:
    """What the config says of the output, with the defaults filled in."""

    store: str
    layers: tuple[str, ...]
    encoding: Encoding
    chunks: tuple[int, int] | None
    compression: str


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
    chunks = output.chunks or tuple(max(256, min(1024, 2048 // w.stride)) for w in windows)
    array = MapArray(
        image=source.name,
        layer=name,
        channels=bound.operations[place].maps,
        extents=(height, width),
        chunks=(min(chunks[0], height), min(chunks[1], width)),
        encoding=output.encoding,
        compression=output.compression,
        scale=(source.scale[0] * windows[0].stride, source.scale[1] * windows[1].stride),
        translation=(_centre(source, windows, 0), _centre(source, windows, 1)),
        units=source.units,
    )
    return Kept(place, array)


def _centre(source: Source, windows: Sequence[Window], axis: int) -> float:
    """Return where the centre of the first output pixel lies: the middle of its taps, padding included."""
    window = windows[axis]
    return source.translation[axis] + source.scale[axis] * ((window.span - 1) / 2 - window.pad_lo)
