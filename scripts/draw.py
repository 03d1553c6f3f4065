"""Draw a run: input, features, maps and pooled maps side by side, for one place of the image.

python scripts/draw.py CONFIG PICTURE.png [--y FROM TO] [--x FROM TO]
"""

import argparse
from typing import Any

import matplotlib as mpl
import numpy as np
import zarr
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

import pipeline
from pipeline.geometry import Interval

mpl.use("Agg")

PLACE = ((640, 860), (2830, 3090))
"""Italy and the Adriatic on the Blue Marble."""


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config")
    parser.add_argument("picture")
    parser.add_argument("--y", nargs=2, type=int, default=PLACE[0])
    parser.add_argument("--x", nargs=2, type=int, default=PLACE[1])
    told = parser.parse_args()
    job = pipeline.load(told.config)
    plan = pipeline.plan(job).images[0]
    place = (Interval(*told.y), Interval(*told.x))

    rows: list[list[tuple[str, Any, dict[str, Any]]]] = []
    stored: Any = zarr.open_array(plan.source.array.store(), mode="r")
    whole = stored[:, ::6, ::6]
    crop = plan.source.read(place)
    size = " × ".join(map(str, plan.source.extents))
    rows.append([(f"input, {size}", _show(whole), {"mark": place}), ("the place shown below", _show(crop), {})])
    for kept in plan.kept:
        operation = plan.stack.operations[kept.place]
        stored = zarr.open_array((plan.store / kept.array.group / "0").store(), mode="r")
        strides = plan.stack.strides(kept.place)
        region = [slice(i.start // s, i.stop // s) for i, s in zip(place, strides, strict=True)]
        maps = stored[:, region[0], region[1]]
        row: list[tuple[str, Any, dict[str, Any]]] = []
        for number, name in enumerate(kept.array.channels):
            if "weights" in operation.arrays and name in job.features:
                values = job.features[name]
                row.append((f"feature {name}", _flat(values), {"feature": True}))
            high = float(np.nanmax(np.abs(maps[number]))) or 1.0
            row.append((f"{kept.array.layer}: {name}", maps[number], {"high": high}))
        rows.append(row)
    _draw(rows, told.picture)
    print(f"drew {told.picture}")


def _show(pixels: Any) -> Any:
    """Return colours (y, x, c) where there are three channels, else the first."""
    return np.moveaxis(pixels, 0, -1) if len(pixels) == 3 else pixels[0]


def _flat(values: Any) -> Any:
    """Lay the planes of a feature side by side."""
    if values.ndim == 2:
        return values
    gap = np.full((values.shape[1], 1), np.nan)
    return np.hstack([part for plane in values for part in (plane, gap)][:-1])


def _draw(rows: list[list[tuple[str, Any, dict[str, Any]]]], picture: str) -> None:
    width = 13.0
    heights = []
    for row in rows:
        shares = [_share(image, style) for _, image, style in row]
        heights.append(min(3.4, width / sum(shares)) + 0.35)
    figure = plt.figure(figsize=(width, sum(heights)), layout="constrained")
    for row, strip in zip(
        rows, figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0], strict=True
    ):
        axes = strip.subplots(1, len(row), width_ratios=[_share(i, s) for _, i, s in row], squeeze=False)[0]
        for axis, (title, image, style) in zip(axes, row, strict=True):
            if image.ndim == 3 or ("high" not in style and "feature" not in style):
                axis.imshow(image, cmap="gray")
            elif "feature" in style:
                axis.imshow(image, cmap="PuOr_r", vmin=-np.nanmax(abs(image)), vmax=np.nanmax(abs(image)))
            else:
                axis.imshow(image, cmap="RdBu_r", vmin=-style["high"], vmax=style["high"], interpolation="nearest")
            if mark := style.get("mark"):
                y, x = mark
                corner = (x.start / 6, y.start / 6)
                axis.add_patch(Rectangle(corner, len(x) / 6, len(y) / 6, fill=False, color="red"))
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    figure.savefig(picture, dpi=110)


def _share(image: Any, style: dict[str, Any]) -> float:
    """Return how wide a panel is beside others of its row; a feature is drawn small."""
    aspect = image.shape[1] / image.shape[0]
    return float(aspect * (0.35 if "feature" in style else 1.0))


if __name__ == "__main__":
    main()
