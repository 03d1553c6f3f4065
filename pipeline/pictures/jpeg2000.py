"""JPEG 2000 (``.jp2``, ``.j2k``) through imagecodecs, decoded whole, so its size is checked before."""

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
from pipeline.pixels import stored_dtype

_BOXES, _STREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_DECODER = 4
"""Bytes in which the decoder keeps a sample, whatever its type."""


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
    data = np.memmap(source, np.uint8, "r")
    height, width, bands, bits = _declared(data, opening.path)
    item = 1 if bits <= 8 else 2 if bits <= 16 else 4
    check_whole(opening, (height, width), height * width * bands * (item + _DECODER))
    image = np.asarray(imagecodecs.jpeg2k_decode(source.read_bytes()))
    image = image[..., None] if image.ndim == 2 else image
    if image.shape != (height, width, bands):
        raise InputError(f"{opening.path}: is damaged: its head says {(height, width, bands)}, it has {image.shape}")

    def read(block: Block) -> NDArray[Any]:
        return np.moveaxis(image[block.y, block.x], 2, 0)

    yield Picture(names(bands, colour=bands >= 3), (height, width), stored_dtype(image.dtype), read)


def _declared(data: NDArray[np.uint8], path: str) -> tuple[int, int, int, int]:
    """Return the height, width, components and bits of the code stream: what the decoder goes by, not a box around it.

    ISO/IEC 15444-1, annex A.5.1 (SIZ) and annex I.4 (boxes).
    """
    start = 0 if data[:4].tobytes() == _STREAM else _stream(data, path)
    x1, y1, x0, y0 = struct.unpack(">4I", data[start + 8 : start + 24].tobytes())
    (count,) = struct.unpack(">H", data[start + 40 : start + 42].tobytes())
    components = data[start + 42 : start + 42 + 3 * count].reshape(count, 3)
    if not count or not x0 < x1 or not y0 < y1:
        raise InputError(f"{path}: is damaged: its head says {x1} - {x0} by {y1} - {y0} pixels of {count} channels")
    if (components[:, 1:] != 1).any():
        raise InputError(f"{path}: has channels of fewer pixels than the image; save it without subsampling")
    return y1 - y0, x1 - x0, count, int((components[:, 0] & 0x7F).max()) + 1


def _stream(data: NDArray[np.uint8], path: str) -> int:
    """Return where the code stream begins in a file of boxes."""
    place = 0
    while place + 16 <= data.size:
        length, kind = struct.unpack(">I4s", data[place : place + 8].tobytes())
        head = 16 if length == 1 else 8
        if length == 1:
            (length,) = struct.unpack(">Q", data[place + 8 : place + 16].tobytes())
        if kind == b"jp2c" and data[place + head : place + head + 4].tobytes() == _STREAM:
            return place + head
        if length < head:
            break
        place += length
    raise InputError(f"{path}: is damaged or cut short: it holds no JPEG 2000 code stream")


FORMAT = Format("JPEG 2000", lambda start: start.startswith((_BOXES, _STREAM)), _open)
