"""PNG and JPEG, which are decoded whole, so their size is checked before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from pipeline.describe import size
from pipeline.errors import InputError
from pipeline.pictures.base import Block, Format, Opening, Picture, names

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_MODES = {"1": 1, "L": 1, "I;16": 1, "RGB": 3, "RGBA": 4, "P": 3}


def check_whole(opening: Opening, extents: tuple[int, int], taken: int) -> None:
    """Refuse an image that is decoded whole and would take more bytes than the memory."""
    if taken > opening.limit:
        raise InputError(
            f"{opening.path}: decoding its {extents[0]} × {extents[1]} pixels takes about {size(taken)}, more than the "
            f"memory of {size(opening.limit)}; allow more (--memory), or save it as a tiled TIFF"
        )


@contextmanager
def _open(source: Path, opening: Opening) -> Iterator[Picture]:
    path = opening.path
    with source.open("rb") as file:
        head = file.read(26)
        file.seek(0)
        png = head.startswith(_PNG)
        if png and head[24:25] == b"\x10" and head[25:26] != b"\0":  # Pillow would keep the upper 8 bits
            raise InputError(f"{path}: is a PNG with 16 bits a colour, which cannot be read; save it as TIFF")
        # Not through PIL.Image.open, which warns of large images before ours, the user's, limit is checked.
        image: Any = PngImageFile(file) if png else JpegImageFile(file)
        if image.mode not in _MODES:
            raise InputError(f"{path}: has pixels of mode {image.mode}; expected one of {', '.join(_MODES)}")
        bands, item = _MODES[image.mode], 2 if image.mode == "I;16" else 1
        check_whole(opening, (image.height, image.width), image.width * image.height * bands * item * 2)
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

    yield Picture(names(bands, colour=bands >= 3), (image.height, image.width), dtype, read)


FORMAT = Format("PNG or JPEG", lambda start: start.startswith((_PNG, _JPEG)), _open)
