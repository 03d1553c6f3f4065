"""Look for planted features in a large image of great offset by normalised cross-correlation, in several chunkings.

python scripts/ncc.py [--side 10000] [--folder DIR]

Makes a uint16 image of SIDE × SIDE pixels with a flat background of 60,000, a noisy band, and a feature planted at
corners and borders of chunks; runs `match: ncc` over it in three chunkings on two workers, verifies one, and prints the
scores at the planted places, those of flat parts, and by how much the chunkings differ. Ends with 1 if a planted match
is not 1 within 1e-6 or not the only one of its place, a flat part is not 0, or the chunkings differ by more than 1e-6.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
import zarr

HALOFLOW = [sys.executable, "-m", "pipeline.cli"]

BACKGROUND = 60_000

FLAT = 256
"""Pixels beside the band and the planted features that are looked at to be 0."""


def places_of(side: int, size: int) -> list[tuple[int, int]]:
    """Return the first pixels of the planted features: at corners and borders of chunks of all three chunkings."""
    edge = side // 4 // 512 * 512
    return [(0, 0), (edge - 5, edge - 6), (edge, 2 * edge - 1), (2 * edge - size, edge), (side - size, side - size)]


def make(folder: Path, side: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Write the image and its feature; return the feature and where it is."""
    rng = np.random.default_rng(7)
    feature = rng.integers(0, 4000, (11, 13)).astype(np.uint16)
    places = places_of(side, 13)
    array = zarr.create_array(folder / "image.zarr", shape=(side, side), chunks=(512, 512), dtype="uint16")
    top = side - side // 4
    for row in range(0, side, 512):
        rows = min(512, side - row)
        pixels = np.full((rows, side), BACKGROUND, np.uint16)
        if row >= top - FLAT:  # noise, in which a planted feature is found, too
            pixels = rng.integers(BACKGROUND, BACKGROUND + 4000, (rows, side)).astype(np.uint16)
        array[row : row + rows] = pixels
    for y, x in places:
        array[y : y + 11, x : x + 13] = BACKGROUND + feature
    return feature, places


def main() -> None:
    """Make, run, look, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haloflow-ncc-", dir=told.folder))
    try:
        sys.exit(not _is_right(folder, told.side))
    finally:
        shutil.rmtree(folder)


def _is_right(folder: Path, side: int) -> bool:
    feature, places = make(folder, side)
    config = {
        "input": {"images": "image.zarr"},
        "features": {"planted": {"rows": feature.tolist()}},
        "layers": [{"type": "convolution", "name": "match", "features": "planted", "match": "ncc"}],
        "output": {"store": "maps.zarr"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    maps = []
    for chunks in (512, 1000, 2048):
        started = time.perf_counter()
        store = f"maps-{chunks}.zarr"
        words = ["run", "config.yaml", "--workers", "2", "--quiet", "--set", f"output.store={store}"]
        subprocess.run([*HALOFLOW, *words, "--set", f"output.chunks={chunks}"], cwd=folder, check=True)
        print(f"chunks of {chunks}²: {time.perf_counter() - started:.1f} s")
        maps.append(zarr.open_array(folder / store / "image/match/0", mode="r"))
    verified = subprocess.run(
        [*HALOFLOW, "verify", "config.yaml", "--set", "output.store=maps-512.zarr", "--set", "output.chunks=512"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    print((verified.stdout + verified.stderr).strip())
    rows = [(slice(None), slice(y, y + 512)) for y in range(0, maps[0].shape[1], 512)]
    apart, most, flat, above = 0.0, 0.0, 0.0, 0
    for at in rows:
        one, *others = (np.asarray(array[at]) for array in maps)
        apart = max(apart, *(float(np.abs(one - other).max()) for other in others))
        most = max(most, float(np.abs(one).max()))
        above += int((one > 1 - 1e-6).sum())
        if at[1].stop < side // 2:
            flat = max(flat, float(np.abs(one[0, :, -side // 4 :]).max()))
    scores = [float(np.asarray(maps[0][0, y, x])) for y, x in places]
    print(f"planted: {', '.join(f'{score:.9f}' for score in scores)}; pixels above 1 − 1e-6: {above} of {len(places)}")
    print(f"greatest magnitude {most:.9f}; of flat parts {flat:g}; chunkings differ by {apart:g} at the most")
    right = all(abs(score - 1) <= 1e-6 for score in scores) and above == len(places)
    return right and most <= 1 and not flat and apart <= 1e-6 and verified.returncode == 0


if __name__ == "__main__":
    main()
