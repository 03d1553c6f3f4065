"""JPEG, decoded whole, so its size is checked before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.errors import InputError
from pipeline.pictures.base import Block, Format, Opening, Picture, check_whole, names

_MODES = {"L": 1, "RGB": 3}


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
    with source.open("rb") as file:
        # Not through PIL.Image.open, which warns of large images before ours, the user's, limit is checked.
        image: Any = JpegImageFile(file)
        if image.mode not in _MODES:
            raise InputError(f"{opening.path}: has pixels of mode {image.mode}; expected one of {', '.join(_MODES)}")
        bands = _MODES[image.mode]
        check_whole(opening, (image.height, image.width), image.width * image.height * bands * 2)
        image.load()
    pixels = np.asarray(image).reshape(image.height, image.width, bands)

    def read(block: Block) -> NDArray[Any]:
        return np.moveaxis(pixels[block.y, block.x], 2, 0)

    yield Picture(names(bands, colour=bands == 3), (image.height, image.width), "uint8", read)


FORMAT = Format("JPEG", lambda start: start.startswith(b"\xff\xd8\xff"), _open)
