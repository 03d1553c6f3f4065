"""The sheet of a job's features: each drawn large, with its name, in one picture."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL, GAP, TEXT = 128, 16, 34
"""Pixels of a feature's picture at the most, between pictures, and for the two lines under each."""

ACROSS = 8
"""Features in a row."""

_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def sheet(features: Mapping[str, NDArray[np.float64]]) -> Image.Image:
    """Return the picture of features (y, x) or (channel, y, x) by name, in their order, row by row.

    A feature's greatest magnitude is white, its negative black, and 0 the gray between; three channels are red, green
    and blue, others stand side by side.
    """
    columns = min(ACROSS, max(1, len(features)))
    rows = max(1, -(-len(features) // columns))
    picture = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + rows * (CELL + TEXT + GAP)), _PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for number, (name, values) in enumerate(features.items()):
        row, column = divmod(number, columns)
        left, top = GAP + column * (CELL + GAP), GAP + row * (CELL + TEXT + GAP)
        drawn = _drawn(values)
        x, y = left + (CELL - drawn.width) // 2, top + CELL - drawn.height
        picture.paste(drawn, (x, y))
        pen.rectangle((x - 1, y - 1, x + drawn.width, y + drawn.height), outline=(200, 200, 200))
        sizes = " x ".join(map(str, values.shape))  # the font that comes with Pillow has no ×
        for line, text in enumerate((_shortened(name, pen, font), f"{sizes}, {values.min():.2g} … {values.max():.2g}")):
            pen.text((left, top + CELL + 4 + 15 * line), text, _INK, font)
    return picture


def _drawn(values: NDArray[np.float64]) -> Image.Image:
    """Return a feature in gray or colours, whole pixels for each of its own unless it is larger than the cell."""
    largest = float(np.abs(values).max()) or 1.0
    grays = np.rint((values / largest + 1) * 127.5).astype(np.uint8)
    if grays.ndim == 3:
        grays = np.moveaxis(grays, 0, -1) if len(grays) == 3 else np.concatenate(list(grays), axis=1)
    image = Image.fromarray(grays)
    times = CELL / max(image.size)
    size = [max(1, int(n * (int(times) if times >= 1 else times))) for n in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.NEAREST if times >= 1 else Image.Resampling.BOX)


def _shortened(name: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a name that fits a cell: its end tells members apart."""
    if pen.textlength(name, font) <= CELL:
        return name
    while len(name) > 1 and pen.textlength(f"…{name}", font) > CELL:
        name = name[1:]
    return f"…{name}"
