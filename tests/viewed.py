"""A store for viewers: dots on black, and maps in which they must lie where they lie in the image."""

import contextlib
from pathlib import Path

import numpy as np
import zarr

import pipeline

DOTS = ((20, 41), (45, 9))
"""Of one pixel each, (y, x)."""


def dotted(folder: Path, *, dtype: str, plain: bool) -> Path:
    """Make dots.zarr (OME-Zarr in micrometres with an offset, or a plain array) and its maps; return the store."""
    pixels = np.zeros((64, 56), np.uint8)
    for y, x in DOTS:
        pixels[y, x] = 255
    if plain:
        zarr.create_array(folder / "dots.zarr", data=pixels, chunks=(20, 20))
    else:
        axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
        placed = [{"type": "scale", "scale": [0.5, 0.25]}, {"type": "translation", "translation": [100.0, -30.0]}]
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": placed}], "name": "dots"}
        group = zarr.create_group(folder / "dots.zarr", attributes={"ome": {"version": "0.5", "multiscales": [image]}})
        group.create_array("0", data=pixels, chunks=(20, 20))
    (folder / "job.yaml").write_text(
        f"""\
input: {{images: dots.zarr, black: 0, white: 255}}
features:
  middle: {{rows: [[0, 0, 0], [0, 1, 0], [0, 0, 0]]}}
  around: {{rows: [[1, 1, 1], [1, 0, 1], [1, 1, 1]]}}
layers:
  - {{type: convolution, name: match, features: [middle, around], match: mean}}
  - {{type: pool, name: pool, window: 2, stride: 2}}
output: {{store: maps.zarr, layers: [match, pool], dtype: {dtype}, chunks: 16}}
"""
    )
    with contextlib.chdir(folder):
        pipeline.run(pipeline.plan(pipeline.load("job.yaml")), cluster="serial")
    return folder / "maps.zarr"
