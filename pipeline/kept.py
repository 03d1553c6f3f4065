"""The maps that tasks make: which, how they lie and are stored, and what a task holds for them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.forecast import IN_FLIGHT, largest_read
from pipeline.geometry import Interval
from pipeline.grid import BlockGrid, MapGrid
from pipeline.pixels import Encoding
from pipeline.stack import BoundStack
from pipeline.storage.codecs import Codec
from pipeline.storage.maps import MapArray, Shrink
from pipeline.storage.metadata import Version
from pipeline.storage.place import Place
from pipeline.storage.source import Source
from pipeline.tables.watch import Watch

SLACK = 2**24
"""Bytes of a task beside its arrays: sessions, handles, what the allocator keeps."""


@dataclass(frozen=True)
class OutputSpec:
    """What the config says of the output, with the defaults filled in."""

    store: Place
    layers: tuple[str, ...]
    encoding: Encoding
    chunks: tuple[int, int] | None
    shards: tuple[int, int] | None
    compression: Codec
    shrink: Shrink | None
    version: Version
    watches: Mapping[str, Watch] = field(default_factory=dict)
    """By the name of a layer what tables tell of it."""


@dataclass(frozen=True)
class Kept:
    """A layer whose map tasks make: its place in the stack from 0, how it lies and is stored, and who looks at it."""

    place: int
    array: MapArray
    stored: bool = True
    watch: Watch | None = None
    """What tables tell of it, stored or not."""


def block_memory(
    source: Source,
    stack: BoundStack,
    kept: Sequence[Kept],
    extents: Sequence[tuple[int, ...]],
    grid: BlockGrid,
    computing: int,
    staged: int = 0,
) -> int:
    """Return the most bytes that one task of a grid holds.

    ``computing`` of them beside its input and output while it computes; ``staged`` is what it reads, where it reads
    whole chunks.
    """
    stored = [k for k in kept if k.stored]
    read, made = largest_read(stack, tuple(k.place for k in kept), tuple(k.stored for k in kept), grid, tuple(extents))
    taken = max(read * source.pixel_bytes, staged)
    chunks = (-(-read // math.prod(source.chunks)) + 3) * len(source.channels)
    decoding = min(IN_FLIGHT, chunks) * 2 * source.chunk_bytes
    item = stored_bytes(kept[0].array, 1) // len(kept[0].array.channels)
    given = made * item
    # A chunk or shard on its way to the store exists as itself, as bytes, shuffled, and compressed; the last goes late.
    encoding = min((IN_FLIGHT + 1) * max((math.prod(k.array.unit) for k in stored), default=0) * item, given) * 4
    # The levels of a pyramid are made of one unit after another, by way of float32.
    shrunk = [3 * math.prod(k.array.unit) * len(k.array.channels) for k in stored if k.array.shrink]
    encoding += max(shrunk, default=0)
    # What the layers held is not all given back before the maps are written.
    looked = sum(_watching(k, m, grid) for k, m in zip(kept, grid.maps, strict=True))
    return SLACK + max(taken + decoding, given + looked + computing + max(taken, encoding))


def _watching(kept: Kept, grid: MapGrid, blocks: BlockGrid) -> int:
    """Return the most bytes that a task holds of a map to look at it."""
    if kept.watch is None:
        return 0
    lengths = [
        min(e, -(-s // (u * stride)) * u)
        for e, u, s, stride in zip(grid.extents, grid.units, blocks.step, grid.strides, strict=True)
    ]
    return kept.watch.memory(len(kept.array.channels), tuple(Interval(0, n) for n in lengths), kept.array.unit)


def stored_bytes(array: MapArray, pixels: int) -> int:
    """Return the bytes of so many pixels of every channel of a map, before compression."""
    size = {"float32": 4, "float16": 2, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1}[array.encoding.dtype]
    return size * len(array.channels) * pixels
