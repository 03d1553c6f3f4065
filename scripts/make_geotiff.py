"""Write a small synthetic GeoTIFF: two bands of an island at sea, 20 m a pixel, in UTM zone 33 north (EPSG:32633).

python scripts/make_geotiff.py demo/island.tif --side 1200
"""

import argparse
from pathlib import Path

import numpy as np
import tifffile

PIXEL = 20.0
WEST, NORTH = 420_000.0, 4_520_000.0
"""Metres east and north of the upper left corner of the upper left pixel."""
EPSG = 32633
NAMES = (
    '<GDALMetadata><Item name="DESCRIPTION" sample="0" role="description">red</Item>'
    '<Item name="DESCRIPTION" sample="1" role="description">infrared</Item></GDALMetadata>'
)


def write(out: Path, side: int) -> None:
    """Write the image (2, side, side): red and near infrared, of which their difference shows plants."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    far = np.hypot(x - 0.5, y - 0.45) + 0.05 * np.sin(9 * np.arctan2(y - 0.45, x - 0.5))
    land, grain = far < 0.3, np.random.default_rng(0).normal(0, 30, (2, side, side))
    woods = land & (np.sin(23 * x) * np.cos(31 * y) > 0)
    red = np.where(woods, 500, np.where(land, 1800, 300))
    infrared = np.where(woods, 3200, np.where(land, 2100, 150))
    bands = np.clip(np.stack([red, infrared]) + grain, 0, 10_000).astype(np.uint16)
    # GeoTIFF 1.1: pixel size; which pixel lies where; model projected, pixels are areas, code of the system.
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, EPSG)
    tags = [
        (33550, "d", 3, (PIXEL, PIXEL, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, WEST, NORTH, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42112, "s", 0, NAMES, True),
    ]
    tifffile.imwrite(
        out,
        bands,
        tile=(256, 256),
        compression="zlib",
        photometric="minisblack",
        planarconfig="separate",
        metadata=None,
        extratags=tags,
    )


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=1200, help="pixels along each side")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write(given.out, given.side)
    print(f"{given.out}: 2 × {given.side} × {given.side} uint16, {PIXEL:g} m a pixel, EPSG:{EPSG}")


if __name__ == "__main__":
    main()
