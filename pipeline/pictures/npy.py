"""NumPy's ``.npy``, mapped block by block; nothing in it is ever unpickled."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.pictures.base import Block, Format, Opening, Picture, names
from pipeline.pixels import is_interleaved, stored_dtype


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
    path = opening.path
    with source.open("rb") as file:
        major, _ = npy.read_magic(file)
        header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, fortran, dtype = header(file)
        start = file.tell()
    if dtype.hasobject:
        raise InputError(f"{path}: holds pickled Python objects, which are never read; save it as numbers")
    if math.prod(shape) * dtype.itemsize > source.stat().st_size - start:
        raise InputError(f"{path}: is cut short: it ends before its last pixel")
    if len(shape) not in (2, 3, 5) or not math.prod(shape):
        raise InputError(f"{path}: has the shape {shape}; expected (y, x), (c, y, x) or (t, c, z, y, x)")
    if is_interleaved(shape):
        raise InputError(f"{path}: has the shape {shape}, which looks like (y, x, c); save it as (c, y, x)")
    times, bands, depth = shape[:3] if len(shape) == 5 else (1, shape[0] if len(shape) == 3 else 1, 1)
    try:
        kind = stored_dtype(dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None

    def read(block: Block) -> NDArray[Any]:
        # Mapped anew each time: pages once read stay in memory until they are unmapped.
        mapped: Any = np.memmap(source, dtype, "r", start, shape, "F" if fortran else "C")
        mapped = mapped.reshape(times, bands, depth, *shape[-2:]) if len(shape) != 5 else mapped
        return np.array(mapped[block.t, block.c, block.z, block.y, block.x], kind)

    yield Picture(names(bands, colour=False), (shape[-2], shape[-1]), kind, read, times, depth, deep=1)


FORMAT = Format("NumPy .npy", lambda start: start.startswith(npy.MAGIC_PREFIX), _open)
