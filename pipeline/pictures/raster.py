"""PNG and JPEG through Pillow, which decodes them whole, so their size is checked before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from pipeline.errors import InputError
from pipeline.pictures import deep_png
from pipeline.pictures.base import GREY_ALPHA, Block, Format, Opening, Picture, check_whole, names
from pipeline.pictures.deep_png import PNG

_JPEG = b"\xff\xd8\xff"
_MODES = {"1": 1, "L": 1, "LA": 2, "I;16": 1, "RGB": 3, "RGBA": 4, "P": 3}


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
    path = opening.path
    with source.open("rb") as file:
        png = file.read(len(PNG)) == PNG
        file.seek(0)
        # Not through PIL.Image.open, which warns of large images before ours, the user's, limit is checked.
        image: Any = PngImageFile(file) if png else JpegImageFile(file)
        if image.mode not in _MODES:
            raise InputError(f"{path}: has pixels of mode {image.mode}; expected one of {', '.join(_MODES)}")
        bands, item = _MODES[image.mode], 2 if image.mode == "I;16" else 1
        # Pillow keeps colours in four bytes a pixel; and beside it there is a block, or what a progressive JPEG is of.
        kept = 4 if bands > 1 else item
        check_whole(opening, (image.height, image.width), image.width * image.height * (kept + 2 * bands))
        image.load()
    if image.mode == "P":
        image.info.pop("transparency", None)  # else Pillow warns that it is left out
        image = image.convert("RGB")
    dtype = {"1": "bool", "I;16": "uint16"}.get(image.mode, "uint8")

    def read(block: Block) -> NDArray[Any]:
        rows, columns = block.y, block.x
        step = max(1, 2**24 // (columns.stop - columns.start))  # crop() warns of more than 89 million pixels
        tops = range(rows.start, rows.stop, step)
        boxes = [(columns.start, top, columns.stop, min(top + step, rows.stop)) for top in tops]
        values = np.concatenate([np.asarray(image.crop(box)) for box in boxes])
        if values.dtype == bool:
            values = values.view("uint8") != 0  # Pillow's True is a byte of 255, NumPy's and Zarr's is 1
        return np.moveaxis(values, 2, 0) if values.ndim == 3 else values[None]

    channels = GREY_ALPHA if bands == 2 else names(bands, colour=bands >= 3)
    yield Picture(channels, (image.height, image.width), dtype, read)


def _recognises(start: bytes) -> bool:
    return start.startswith((PNG, _JPEG)) and not deep_png.FORMAT.recognises(start)


FORMAT = Format("PNG or JPEG", _recognises, _open)
