"""Draw the 9 × 9 X and O of tests/data/xo, as chunked Zarr: python scripts/make_xo.py FOLDER."""

import sys

import numpy as np
import zarr


def main() -> None:
    """Write x.zarr and o.zarr into the folder."""
    x = np.zeros((9, 9), np.uint8)
    for i in range(1, 8):
        x[i, i] = x[i, 8 - i] = 255
    o = np.zeros((9, 9), np.uint8)
    for a, b in ((1, 3), (1, 4), (1, 5), (2, 2), (2, 6), (3, 1), (3, 7), (4, 1)):
        for y, z in ((a, b), (8 - a, 8 - b)):
            o[y, z] = 255
    for name, image in (("x", x), ("o", o)):
        stored = zarr.create_array(
            f"{sys.argv[1]}/{name}.zarr",
            shape=image.shape,
            chunks=(4, 5),
            dtype="uint8",
            dimension_names=("y", "x"),
            overwrite=True,
        )
        stored[:] = image


if __name__ == "__main__":
    main()
