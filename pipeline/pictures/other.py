"""Whatever bioio and its plugins read, where they are installed: the formats of microscopes."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.pictures.base import Block, Opening, Picture, names, reason
from pipeline.pixels import stored_dtype


@contextmanager
def open_with_bioio(source: Path, opening: Opening, known: Sequence[str]) -> Iterator[Picture]:
    """Open a file of a format that is not ours; ``known`` are those that are."""
    expected = f"{opening.path}: is no image of a known format ({', '.join(known)})"
    if find_spec("bioio") is None:
        raise InputError(f"{expected}; for others: pip install 'haloflow[bioio]' and bioio's plugin for it")
    try:
        image: Any = import_module("bioio").BioImage(source)
        dims = image.dims
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes the plugins raise
        said = shorten(reason(error), 200, placeholder=" …")
        raise InputError(f"{expected}, nor one that bioio's installed plugins read: {said}") from None
    samples = getattr(dims, "S", 1) if "S" in dims.order else 1
    dtype = stored_dtype(np.dtype(image.dtype))
    labels = tuple(map(str, image.channel_names or ()))
    if samples > 1:
        labels = names(samples, colour=samples >= 3) if dims.C == 1 else ()
    bands, turn = dims.C * samples, threading.Lock()

    def read(block: Block) -> NDArray[Any]:
        order = "CYXS" if samples > 1 else "CYX"
        first, last = block.c.start // samples, -(-block.c.stop // samples)
        with turn:  # the plugins do not say whether they may be called from several threads
            lazy = image.get_image_dask_data(order, T=block.t, Z=block.z, C=range(first, last))
            values = np.asarray(lazy[:, block.y, block.x].compute(scheduler="synchronous"), dtype)
        return np.moveaxis(values, 3, 1).reshape(-1, *values.shape[1:3]) if samples > 1 else values

    sizes = {axis: getattr(image.physical_pixel_sizes, axis.upper()) for axis in "zyx"}
    scale = {axis: float(value) for axis, value in sizes.items() if value and value > 0}
    others = len(image.scenes) - 1
    yield Picture(
        channels=labels if len(labels) == bands else names(bands, colour=False),
        extents=(dims.Y, dims.X),
        dtype=dtype,
        read=read,
        times=dims.T,
        depth=dims.Z,
        deep=samples,
        scale=scale,
        units=dict.fromkeys(scale, "micrometer"),  # what bioio's sizes are in
        notes=(f"{opening.path}: holds {others} more scenes, which are left out",) if others else (),
    )
