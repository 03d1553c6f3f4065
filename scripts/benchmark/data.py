"""The data: seeded images in chunked Zarr, and features in files."""

import shutil
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from zarr.codecs import BloscCodec

from benchmark.jobs import Job

SEED = 20

CHUNK = 1024
"""The edge of an input chunk, where the image is large enough to have many."""


DARK = 6.0
"""The ground's pixel value, before the noise."""


def chunk_of(side: int) -> int:
    """Return the edge of an input chunk; small images are cut finer, so that there is still something to share."""
    return CHUNK if side >= 4 * CHUNK else max(side // 4, 64)


def make_image(folder: Path, side: int, channels: int) -> Path:
    """Return a uint8 image, made unless it is there: (y, x), or (c, y, x) if there are several channels."""
    path = folder / f"image-{side}-{channels}.zarr"
    if path.exists():
        return path
    draw = np.random.default_rng(SEED)
    planes = [_plane(draw, side) for _ in range(channels)]
    pixels = planes[0] if channels == 1 else np.stack(planes)
    chunk = chunk_of(side)
    fresh = path.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    chunks = (chunk, chunk) if channels == 1 else (1, chunk, chunk)
    stored = zarr.create_array(fresh, shape=pixels.shape, chunks=chunks, dtype="uint8", compressors=codec)
    stored[:] = pixels
    fresh.rename(path)
    return path


def _plane(draw: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Smooth shapes of many sizes on a dark ground, all of it with the noise of a camera."""
    plane = np.zeros((side, side), np.float32)
    for step, height in ((512, 60.0), (96, 40.0), (24, 15.0)):
        coarse = draw.standard_normal((side // step + 2,) * 2).astype(np.float32) * height
        plane += np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    np.clip(plane + 20, DARK, None, out=plane)
    noise = draw.standard_normal(plane.shape, dtype=np.float32)
    return np.clip(np.rint(plane + noise * np.sqrt(plane) * 0.2), 0, 255).astype(np.uint8)


def make_features(folder: Path, job: Job) -> dict[str, str]:
    """Return the files of a job's features by name, in the order of its layers."""
    place = folder / "features" / job.name
    place.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, weights in enumerate(job.convolutions):
        for feature, values in enumerate(weights):
            file = place / f"{number}-{feature}.npy"
            np.save(file, values)
            files[f"f{number}_{feature}"] = str(file)
    return files


def to_map(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return map values, −1 … 1, of raw pixels: what every contestant computes with."""
    return pixels * np.float32(2 / 255) - np.float32(1)
