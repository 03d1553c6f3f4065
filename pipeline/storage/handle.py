"""An open array as tasks read and write it: through files where its chunks are files, through zarr otherwise."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.geometry import Region
from pipeline.storage.chunkfiles import ChunkFiles
from pipeline.storage.place import Place


@dataclass(frozen=True)
class Handle:
    """A Zarr array, and its files where it has some; both give the same numbers."""

    array: Any
    files: ChunkFiles | None

    @classmethod
    def open(cls, place: Place, mode: Literal["r", "r+"]) -> "Handle":
        """Open the array at a place; raises what zarr raises where there is none."""
        array: Any = zarr.open_array(place.store(), mode=mode)
        return cls(array, ChunkFiles.of(array))

    def read(self, box: Region) -> NDArray[Any]:
        """Return the numbers of a box, an interval for each axis."""
        if self.files:
            return self.files.read(box)
        return np.asarray(self.array[tuple(slice(i.start, i.stop) for i in box)])

    def write(self, place: tuple[int, ...], chunk: NDArray[Any]) -> None:
        """Write a whole shard or chunk; what lies beyond the array's end is dropped, as is nothing but fill value."""
        if self.files:
            self.files.write(place, chunk)
            return
        ends = zip(place, self.array.shards or self.array.chunks, self.array.shape, strict=True)
        box = tuple(slice(p * size, min((p + 1) * size, extent)) for p, size, extent in ends)
        self.array[box] = chunk[tuple(slice(0, b.stop - b.start) for b in box)]
