"""PNG of 8 bits, one channel in grey or red, green and blue, held whole, so its size is checked before."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.describe import size
from pipeline.errors import InputError
from pipeline.exporting.base import Selection, Writer
from pipeline.geometry import Interval
from pipeline.pixels import PixelScale

_COLOURS = (("red", "green", "blue"), ("red", "green", "blue", "alpha"))


def _write(selection: Selection, out: Path) -> tuple[str, ...]:
    times, count, depth, height, width = selection.shape
    path, channels = selection.source.path, selection.source.channels
    if times * depth > 1:
        raise InputError(f"{path}: a PNG shows one plane, and there are {times * depth}; name one (--t, --z)")
    if count > 1 and channels not in _COLOURS:
        raise InputError(
            f"{path}: a PNG shows one channel, or red, green and blue; name one of {', '.join(channels[:8])} "
            "(--channel)"
        )
    if (taken := 2 * count * height * width) > selection.limit:
        raise InputError(
            f"{path}: a PNG of {height} × {width} pixels takes {size(taken)}, more than the memory of "
            f"{size(selection.limit)}; name a region (--region) or a coarser level (--level), or write a TIFF"
        )
    image, step = np.empty((height, width, count), np.uint8), selection.band(1)
    for c, window in enumerate(selection.windows):
        low, high = window or PixelScale(selection.source.dtype).ends
        for top in range(0, height, step):
            rows = Interval(top, min(top + step, height))
            image[top : rows.stop, :, c] = _shown(selection.read((0, c, 0), rows), low, high)
    Image.fromarray(image[:, :, 0] if count == 1 else image).save(out, "PNG")
    return ()


def _shown(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return numbers as shades: ``low`` is 0, ``high`` 255, what lies between is rounded, NaN is 0."""
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return values
    wide = (values.astype(np.float64) - low) / (high - low) * 255
    return np.rint(np.nan_to_num(np.clip(wide, 0, 255))).astype(np.uint8)


WRITER = Writer((".png",), _write)
