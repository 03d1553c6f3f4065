"""Draw X and O as chunked Zarr: two small drawings, thousands of letters as if by hand, or mosaics of them.

python scripts/make_xo.py drawings FOLDER                  the 9 × 9 X and O of tests/data/xo
python scripts/make_xo.py letters FOLDER [--count N] …     N images of each, and labels.csv
python scripts/make_xo.py mosaic PATH [--extent N] …       many in one image, and a table of where they are
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LETTERS = "XO"
RADIUS = 0.3
"""Of a letter at scale 1, as a part of the image's side."""

CELL, NOMINAL = 96, 64
"""Of a mosaic: pixels of a cell, and of the side that its letters' scale is measured by."""


def drawings(folder: Path) -> None:
    """Write x.zarr and o.zarr, 9 × 9, into the folder."""
    x = np.zeros((9, 9), np.uint8)
    for i in range(1, 8):
        x[i, i] = x[i, 8 - i] = 255
    o = np.zeros((9, 9), np.uint8)
    for a, b in ((1, 3), (1, 4), (1, 5), (2, 2), (2, 6), (3, 1), (3, 7), (4, 1)):
        for y, z in ((a, b), (8 - a, 8 - b)):
            o[y, z] = 255
    for name, image in (("x", x), ("o", o)):
        _write(folder / f"{name}.zarr", image, (4, 5))


def _write(path: Path, image: NDArray[np.uint8], chunks: tuple[int, int]) -> None:
    stored = zarr.create_array(
        str(path), shape=image.shape, chunks=chunks, dtype="uint8", dimension_names=("y", "x"), overwrite=True
    )
    stored[:] = image


def ink(rng: np.random.Generator, letter: str, y: Floats, x: Floats, radius: float) -> Floats:
    """Return how much of each pixel a letter covers, 0 to 1.

    Its strokes are 0.12 to 0.3 radii wide, an O is up to 1.5 times as long as wide, all is turned by up to 25° and bent
    by three smooth waves along each axis.

    Parameters
    ----------
    rng
        What draws all of that.
    letter
        X or O.
    y, x
        Rows and columns, in pixels from the letter's centre.
    radius
        From its centre to the ends of its strokes, in pixels.
    """
    angle, width = np.deg2rad(rng.uniform(-25, 25)), rng.uniform(0.12, 0.3)
    v, u = (y / radius)[:, None], (x / radius)[None, :]
    bent = []
    for along in (v, u):
        moved = np.broadcast_to(along, (len(y), len(x))).astype(np.float32)
        for _ in range(3):
            frequency, direction, phase = rng.uniform(1, 3.5), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
            down = (frequency * np.sin(direction) * v + phase).astype(np.float32)
            across = (frequency * np.cos(direction) * u).astype(np.float32)
            # The sine of a sum of one number for each row and one for each column.
            wave = np.sin(down) * np.cos(across) + np.cos(down) * np.sin(across)
            moved += np.float32(rng.uniform(0, 0.06)) * wave
        bent.append(moved)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    v, u = cosine * bent[0] - sine * bent[1], cosine * bent[1] + sine * bent[0]
    if letter == "X":
        half = np.float32(np.sqrt(0.5))
        falling, rising = half * (u + v), half * (u - v)
        strokes = [np.hypot(np.maximum(np.abs(a) - 1, 0), b) for a, b in ((falling, rising), (rising, falling))]
        away = np.minimum(*strokes)
    else:
        aspect = np.float32(np.exp(rng.uniform(-0.2, 0.2)))
        away = np.abs(np.hypot(u / aspect, v * aspect) - np.float32(0.85))
    covered: Floats = np.clip((width / 2 - away) * radius + 0.5, 0, 1).astype(np.float32)
    return covered


def picture(rng: np.random.Generator, letter: str, side: int) -> NDArray[np.uint8]:
    """Return a gray image with one letter anywhere in it, of scale 0.5 to 1.5, light on dark or dark on light."""
    radius = RADIUS * side * rng.uniform(0.5, 1.5)
    room = max(0.0, min(side / 2 - 1.15 * radius, side / 4))
    y, x = ((side - 1) / 2 + rng.uniform(-room, room) for _ in "yx")
    at = np.arange(side, dtype=np.float32)
    covered = ink(rng, letter, at - np.float32(y), at - np.float32(x), radius)
    contrast = rng.uniform(100, 230)
    ground = rng.uniform(10, 245 - contrast)
    if rng.random() < 0.5:
        ground, contrast = ground + contrast, -contrast
    return _noisy(rng, ground + contrast * covered, rng.uniform(0, 20))


def _noisy(rng: np.random.Generator, gray: Floats, noise: float) -> NDArray[np.uint8]:
    gray = gray + np.float32(noise) * rng.standard_normal(gray.shape, np.float32)
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


def letters(folder: Path, count: int, seed: int, sides: Sequence[int]) -> None:
    """Write ``count`` images of each letter, of sides from the first to the last of two, and labels.csv.

    Each image is drawn from a seed of its own, so that more images begin with the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        for number in range(count):
            for which, letter in enumerate(LETTERS):
                rng = np.random.default_rng([seed, number, which])
                side = int(rng.integers(sides[0], sides[1] + 1))
                name = f"{letter.lower()}-{number:05}"
                _write(folder / f"{name}.zarr", picture(rng, letter, side), (side, side))
                table.writerow([name, letter])


def mosaic(path: Path, extent: int, seed: int) -> None:
    """Write one image of so many pixels a side with a letter in every second cell, and a table of them beside it.

    Each letter is light or dark on gray, of scale 0.5 to 1.5, its centre up to 12 pixels from its cell's. The table, of
    the same name with .csv, has the columns letter, y, x (of the centre, in pixels) and radius.
    """
    cells = extent // CELL
    stored = zarr.create_array(
        str(path), shape=(extent, extent), chunks=(512, 512), dtype="uint8", dimension_names=("y", "x"), overwrite=True
    )
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["letter", "y", "x", "radius"])
        for top in range(0, extent, 16 * CELL):  # 1536 rows, three chunks
            strip = np.full((min(16 * CELL, extent - top), extent), 128, np.float32)
            for row in range(top // CELL, min(top // CELL + 16, cells)):
                for column in range(cells):
                    rng = np.random.default_rng([seed, row, column])
                    if rng.random() < 0.5:
                        continue
                    letter = LETTERS[int(rng.integers(2))]
                    radius = RADIUS * NOMINAL * rng.uniform(0.5, 1.5)
                    y, x = (CELL / 2 + rng.uniform(-12, 12) for _ in "yx")
                    contrast = rng.uniform(50, 110) * rng.choice([-1, 1])
                    at = np.arange(CELL, dtype=np.float32)
                    covered = ink(rng, letter, at - np.float32(y), at - np.float32(x), radius)
                    cell = (slice(row * CELL - top, (row + 1) * CELL - top), slice(column * CELL, (column + 1) * CELL))
                    strip[cell] += np.float32(contrast) * covered
                    table.writerow([letter, f"{row * CELL + y:.1f}", f"{column * CELL + x:.1f}", f"{radius:.1f}"])
            stored[top : top + len(strip)] = _noisy(np.random.default_rng([seed, top]), strip, 8)


def main() -> None:
    """Draw what the arguments say."""
    parser = argparse.ArgumentParser(description="Draw X and O as chunked Zarr.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("drawings").add_argument("folder", type=Path)
    many = verbs.add_parser("letters")
    many.add_argument("folder", type=Path)
    many.add_argument("--count", type=int, default=2000, help="images of each letter")
    many.add_argument("--sides", type=int, nargs=2, default=(64, 512), help="pixels of a side, from and to")
    one = verbs.add_parser("mosaic")
    one.add_argument("path", type=Path)
    one.add_argument("--extent", type=int, default=8192, help="pixels of a side")
    for verb in (many, one):
        verb.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    if told.verb == "drawings":
        drawings(told.folder)
    elif told.verb == "letters":
        letters(told.folder, told.count, told.seed, told.sides)
    else:
        mosaic(told.path, told.extent, told.seed)


if __name__ == "__main__":
    main()
