"""How an ingested image is stored, and the units of work it is cut into."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from pipeline.describe import size, times
from pipeline.errors import OutputError
from pipeline.pictures.base import Block, Picture
from pipeline.storage.codecs import Codec
from pipeline.storage.place import Place

_MOST = 2**30
"""Blosc compresses at most 2 GiB at once."""


@dataclass(frozen=True)
class Layout:
    """The array that an image becomes, and the pixels (y, x) of a unit of work: whole shards or chunks.

    What an ingest that goes on has to have in common with the one that was begun.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, int]
    shards: tuple[int, int] | None
    compression: str
    level: int | None
    deep: int
    band: tuple[int, int]

    @classmethod
    def of(
        cls, picture: Picture, chunks: tuple[int, int], shards: tuple[int, int] | None, codec: Codec, most: int
    ) -> "Layout":
        """Return the layout of a picture, in units of at most ``most`` bytes; `OutputError` where none is possible.

        A unit is as wide as it can be, since strips are, and as tall as what is decoded together.
        """
        (height, width), count = picture.extents, len(picture.channels)
        if shards is None:
            chunks = min(chunks[0], height), min(chunks[1], width)
        else:  # a shard holds whole chunks, so chunks stay; but it need not be larger than the image in chunks
            covering = (-(-extent // chunk) * chunk for extent, chunk in zip((height, width), chunks, strict=True))
            fitted = [min(shard, cover) for shard, cover in zip(shards, covering, strict=True)]
            shards = fitted[0], fitted[1]
        tall, wide = shards or chunks
        deep = picture.deep or count
        pixel = deep * np.dtype(picture.dtype).itemsize
        most = min(most, _MOST)
        if tall * wide * pixel > most:
            kind = "shards" if shards else "chunks"
            raise OutputError(
                f"{kind} of {times((tall, wide))} take {size(tall * wide * pixel)} ({deep} channels at once), more "
                f"than the {size(most)} that a block may take, a quarter of the memory; ask for smaller ones"
            )
        across = min(-(-width // wide) * wide, most // (tall * pixel) // wide * wide)
        down = tall * max(1, min(-(-picture.tall // tall), most // (across * pixel) // tall))
        axes = tuple(axis for axis in "tczyx" if axis in "cyx" or (picture.times if axis == "t" else picture.depth) > 1)
        extents = {"t": picture.times, "c": count, "z": picture.depth, "y": height, "x": width}
        return cls(
            axes=axes,
            shape=tuple(extents[axis] for axis in axes),
            dtype=picture.dtype,
            chunks=chunks,
            shards=shards,
            compression=codec.name,
            level=codec.level,
            deep=deep,
            band=(min(down, -(-height // tall) * tall), across),
        )

    @property
    def unit_bytes(self) -> int:
        """The bytes of a unit of work, decoded."""
        return self.deep * self.band[0] * self.band[1] * np.dtype(self.dtype).itemsize

    def extent(self, axis: str) -> int:
        """Return the pixels along an axis; 1 where there is none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def units(self) -> Iterator[Block]:
        """Give the units of work, always in the same order: each is written once, and no two share a shard or chunk."""
        height, width = self.extent("y"), self.extent("x")
        for t in range(self.extent("t")):
            for c in range(0, self.extent("c"), self.deep):
                for z in range(self.extent("z")):
                    for y in range(0, height, self.band[0]):
                        for x in range(0, width, self.band[1]):
                            rows = slice(y, min(y + self.band[0], height))
                            columns = slice(x, min(x + self.band[1], width))
                            yield Block(t, slice(c, c + self.deep), z, rows, columns)

    @property
    def count(self) -> int:
        """How many units there are."""
        planes = self.extent("t") * self.extent("c") // self.deep * self.extent("z")
        rows, columns = (-(-self.extent(axis) // size) for axis, size in zip("yx", self.band, strict=True))
        return planes * rows * columns

    def write(self, array: Any, block: Block, values: Any) -> None:
        """Write the pixels (c, y, x) of a unit to the open array."""
        places = {"t": slice(block.t, block.t + 1), "c": block.c, "z": slice(block.z, block.z + 1)}
        places |= {"y": block.y, "x": block.x}
        index = tuple(places[axis] for axis in self.axes)
        shape = [values.shape["cyx".index(axis)] if axis in "cyx" else 1 for axis in self.axes]
        array[index] = values.reshape(shape)

    def create(self, place: Place, attributes: Mapping[str, Any]) -> None:
        """Make the empty array at a place, or give one that is there other attributes.

        Its metadata is made in memory and written from there: zarr would also write that of all groups above the place,
        up to the top of a bucket.
        """
        lead, store = (1,) * (len(self.axes) - 2), MemoryStore()
        zarr.create_array(
            store,
            shape=self.shape,
            chunks=(*lead, *self.chunks),
            shards=(*lead, *self.shards) if self.shards else None,
            dtype=self.dtype,
            compressors=Codec(self.compression, self.level).made(),
            fill_value=0,
            dimension_names=self.axes,
            attributes=dict(attributes),
        )
        made = sync(store.get("zarr.json", default_buffer_prototype()))
        if made is not None:
            place.write("zarr.json", made.to_bytes())

    def open(self, place: Place) -> Any:
        """Open the array for writing."""
        # An absent chunk would read as 0 and pass for lost data later; and −0.0 is not 0.
        return zarr.open_array(place.store(), mode="r+").with_config({"write_empty_chunks": True})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
