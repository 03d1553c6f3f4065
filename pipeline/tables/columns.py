"""The columns of the tables, and the place in the store where each table lies.

Places are those of pixels' centres. ``y`` and ``x`` are in pixels of the input's array, where a pixel of a map lies
in the middle of the input pixels it was made of; what the edge cuts off the window of a pool is none of them. ``t`` and
``z`` are the plane's numbers in it. ``world_…`` are the same in the units of the input's OME-Zarr metadata (of an image
on Earth, ``world_y`` is minus the world's y); ``map_y`` and ``map_x`` count pixels of the map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.sections import Summaries

Kind = Literal["text", "whole", "float32", "float64", "counts"]


@dataclass(frozen=True)
class Column:
    """A column: its name, and what it holds."""

    name: str
    kind: Kind


def detection_columns(outer: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of detections in images that have planes along the ``outer`` axes."""
    return (
        Column("image", "text"),
        *(Column(name, "whole") for name in outer),
        Column("feature", "text"),
        Column("score", "float32"),
        Column("y", "float64"),
        Column("x", "float64"),
        *(Column(f"world_{name}", "float64") for name in (*outer, "y", "x")),
        Column("map_y", "whole"),
        Column("map_x", "whole"),
    )


def summary_columns(outer: Sequence[str], wanted: Summaries) -> tuple[Column, ...]:
    """Return the columns of summaries of images that have planes along the ``outer`` axes."""
    return (
        Column("image", "text"),
        *(Column(name, "whole") for name in outer),
        Column("layer", "text"),
        Column("feature", "text"),
        Column("pixels", "whole"),
        Column("nan", "whole"),
        Column("mean", "float64"),
        Column("std", "float64"),
        Column("max", "float32"),
        Column("max_y", "float64"),
        Column("max_x", "float64"),
        Column("max_world_y", "float64"),
        Column("max_world_x", "float64"),
        *([Column("over", "float64")] if wanted.over is not None else []),
        *([Column("histogram", "counts")] if wanted.histogram else []),
    )
