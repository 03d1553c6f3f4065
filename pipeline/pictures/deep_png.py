"""PNG with 16 bits a colour, of which Pillow would keep the upper 8: through imagecodecs, decoded whole."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.base import GREY_ALPHA, Block, Format, Opening, Picture, check_whole, names

PNG = b"\x89PNG\r\n\x1a\n"
"""How every PNG begins."""

_CHANNELS = {2: names(3, colour=True), 4: GREY_ALPHA, 6: names(4, colour=True)}
"""Of the colour types in a file's head (ISO/IEC 15948, 11.2.1)."""


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
    with source.open("rb") as file:
        width, height, _, kind = struct.unpack(">16x2I2B", file.read(26))
    channels = _CHANNELS[kind]
    # A colour that is said to be transparent is decoded as one channel more; and beside it there is the file.
    check_whole(opening, (height, width), height * width * (len(channels) + 1) * 2 + source.stat().st_size)
    image = np.asarray(imagecodecs.png_decode(source.read_bytes()))

    def read(block: Block) -> NDArray[Any]:
        return np.moveaxis(image[block.y, block.x, : len(channels)], 2, 0)

    yield Picture(channels, (height, width), "uint16", read)


def _recognises(start: bytes) -> bool:
    return start.startswith(PNG) and start[24:25] == b"\x10" and start[25:26] in (b"\2", b"\4", b"\6")


FORMAT = Format("PNG with 16 bits a colour", _recognises, _open)
