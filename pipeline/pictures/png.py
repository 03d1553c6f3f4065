"""PNG through imagecodecs, decoded whole, so its size is checked before."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.pictures.base import Block, Format, Opening, Picture, check_whole, names

_SIGN = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3
_CHANNELS = {
    0: names(1, colour=False),
    2: names(3, colour=True),
    _PALETTE: names(3, colour=True),
    4: (*names(1, colour=False), "alpha"),
    6: names(4, colour=True),
}
"""Of the colour types in a file's head (ISO/IEC 15948, 11.2.1); what a palette or a pixel says is transparent is not
taken over."""


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
    with source.open("rb") as file:
        width, height, depth, kind = struct.unpack(">16x2I2B", file.read(26))
    if kind not in _CHANNELS:
        raise InputError(f"{opening.path}: is damaged: its head says colour type {kind}, which there is not")
    channels = _CHANNELS[kind]
    # What is transparent is decoded as one channel more; and beside it there is the file.
    decoded = height * width * (len(channels) + 1) * (2 if depth == 16 else 1)
    check_whole(opening, (height, width), decoded + source.stat().st_size)
    image = np.asarray(imagecodecs.png_decode(source.read_bytes()))
    image = image[..., None] if image.ndim == 2 else image
    if depth == 1 and kind != _PALETTE:
        image = image != 0

    def read(block: Block) -> NDArray[Any]:
        return np.moveaxis(image[block.y, block.x, : len(channels)], 2, 0)

    yield Picture(channels, (height, width), image.dtype.name, read)


FORMAT = Format("PNG", lambda start: start.startswith(_SIGN), _open)
