"""The peaks that a task finds in its block of a layer's maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import peaks
from pipeline.geometry import Region
from pipeline.sections import Detections

ROW = np.dtype([("map", "<u4"), ("y", "<i8"), ("x", "<i8"), ("score", "<f4"), ("dy", "<f8"), ("dx", "<f8")])
"""A peak: which map, the pixel in the map's frame, the pixel's value, and how far from it the top is, in pixels."""

Rows = NDArray[Any]
"""An array of `ROW`."""


def find(wanted: Detections, maps: NDArray[np.float32], seen: Region, own: Region) -> Rows:
    """Return the peaks of (c, y, x) maps over the region ``seen`` that lie in the region ``own``, by map, y and x.

    ``seen`` goes ``distance`` pixels beyond ``own``, or to the edge of the map.
    """
    rows, columns = (i.within(frame) for i, frame in zip(own, seen, strict=True))
    asked = (rows.start, rows.stop), (columns.start, columns.stop)
    room = np.empty((most(wanted, own), 2), np.int64)
    found = []
    for number, values in enumerate(maps):
        at = room[: peaks.find(values, *asked, wanted.threshold, wanted.distance, room)].copy()
        made = np.zeros(len(at), ROW)
        made["map"] = number
        made["y"], made["x"] = at[:, 0] + seen[0].start, at[:, 1] + seen[1].start
        made["score"] = values[at[:, 0], at[:, 1]]
        if wanted.refine:
            made["dy"], made["dx"] = _refined(values, at)
        found.append(made if wanted.top is None else best(made, wanted.top))
    return np.concatenate(found) if found else np.empty(0, ROW)


def most(wanted: Detections, own: Region) -> int:
    """Return how many peaks a map can have in a region at the most: they are further than ``distance`` apart."""
    height, width = (-(-len(i) // (wanted.distance + 1)) for i in own)
    return height * width


def best(rows: Rows, top: int) -> Rows:
    """Return of one map's peaks in their order the ``top`` greatest, of equal ones the first, in the same order."""
    if len(rows) <= top:
        return rows
    order = np.argsort(-rows["score"], kind="stable")[:top]
    return rows[np.sort(order)]


def _refined(values: NDArray[np.float32], at: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far from pixels (n, 2) the quadratic function around each has its top, along y and along x.

    δ = −H⁻¹ g with the gradient g and the Hessian H by central differences of the 3 × 3 pixels: M. Brown, D. Lowe,
    "Invariant Features from Interest Point Groups", BMVC 2002, eq. 3. It is cut to half a pixel, and 0 where the
    function has no top (H is not negative definite), and at the edge of the map.
    """
    height, width = values.shape
    dy, dx = np.zeros(len(at)), np.zeros(len(at))
    y, x = at[:, 0], at[:, 1]
    inner = np.flatnonzero((y > 0) & (y < height - 1) & (x > 0) & (x < width - 1))
    y, x = y[inner], x[inner]
    near = {(i, j): values[y + i, x + j].astype(np.float64) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    with np.errstate(all="ignore"):  # what is not finite has no top
        gy, gx = (near[1, 0] - near[-1, 0]) / 2, (near[0, 1] - near[0, -1]) / 2
        yy = near[1, 0] - 2 * near[0, 0] + near[-1, 0]
        xx = near[0, 1] - 2 * near[0, 0] + near[0, -1]
        yx = (near[1, 1] - near[1, -1] - near[-1, 1] + near[-1, -1]) / 4
        area = yy * xx - yx * yx
        down = (yx * gx - xx * gy) / area
        right = (yx * gy - yy * gx) / area
    good = (yy < 0) & (area > 0) & np.isfinite(down) & np.isfinite(right)
    dy[inner[good]] = down[good].clip(-0.5, 0.5)
    dx[inner[good]] = right[good].clip(-0.5, 0.5)
    return dy, dx
