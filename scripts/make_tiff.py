"""Write a large synthetic TIFF without holding it: smooth shapes and noise, the same pixels in every layout.

python scripts/make_tiff.py big.tif --side 20000 --layout tiled --compression zlib
"""

import argparse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

TILE = 512
STRIP = 16
BAND = 256


def pixels(rows: range, columns: range, side: int) -> NDArray[np.uint8]:
    """Return a part of the image: rings and waves that scale with its side, and noise by place."""
    y = np.arange(rows.start, rows.stop, dtype=np.uint32)[:, None]
    x = np.arange(columns.start, columns.stop, dtype=np.uint32)[None]
    across, down = x.astype(np.float32) / side, y.astype(np.float32) / side
    rings = np.sin(60 * np.hypot(across - 0.4, down - 0.55))
    waves = np.sin(23 * across) * np.cos(17 * down)
    noise = (x * np.uint32(0x9E3779B1)) ^ (y * np.uint32(0x85EBCA6B))
    noise = (noise ^ (noise >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    values = 128 + 60 * rings + 40 * waves + (noise >> np.uint32(27)).astype(np.float32)
    found: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return found


def parts(side: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the image in parts of (height, width), row by row, the last ones cut at the edge."""
    for top in range(0, side, height):
        for left in range(0, side, width):
            yield pixels(range(top, min(top + height, side)), range(left, min(left + width, side)), side)


def write(out: Path, side: int, layout: str, compression: str) -> None:
    """Write the image (side, side) as ``tiled``, ``striped``, or one ``single`` strip, never compressed."""
    codec = None if compression == "none" else compression
    common = {"shape": (side, side), "dtype": "uint8", "compression": codec, "bigtiff": side > 2**16}
    if layout == "tiled":
        tifffile.imwrite(out, parts(side, TILE, TILE), tile=(TILE, TILE), **common)
    elif layout == "striped":
        strips: Iterator[Any] = parts(side, STRIP, side)
        if codec:  # of strips to compress tifffile wants the whole page, so it gets them compressed
            strips = (zlib.compress(strip.tobytes()) for strip in strips)
        tifffile.imwrite(out, strips, rowsperstrip=STRIP, **common)
    else:
        tifffile.memmap(out, shape=(side, side), dtype="uint8").flush()
        for top in range(0, side, BAND):
            whole = tifffile.memmap(out, mode="r+")  # mapped anew for each band, to give the last one's memory back
            rows = range(top, min(top + BAND, side))
            whole[rows.start : rows.stop] = pixels(rows, range(side), side)
            whole.flush()


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, required=True, help="pixels along each side")
    parser.add_argument("--layout", choices=["tiled", "striped", "single"], default="tiled")
    parser.add_argument("--compression", choices=["zlib", "none"], default="none")
    given = parser.parse_args()
    if given.side < 1:
        parser.error("--side must be at least 1")
    if given.layout == "single" and given.compression != "none":
        parser.error("--layout single is written in place and so cannot be compressed")
    write(given.out, given.side, given.layout, given.compression)
    print(f"{given.out}: {given.side} × {given.side} uint8, {given.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
