"""Verify the table of decisions: which rows it has, their classes, and the scores of planes that are made again."""

import random
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.describe import times
from pipeline.errors import counted
from pipeline.execute.decisions import classes
from pipeline.geometry import whole
from pipeline.kept import Kept
from pipeline.planning import ImagePlan
from pipeline.verifying.again import UNDER, WHOLE, Again, Reader, is_small, make_of, slack_of
from pipeline.verifying.tables import Rows, planes_of


def check(image: ImagePlan, table: Rows) -> Iterator[str]:
    """Say what is wrong with the rows of an image: one for each plane, whose class is that of the greatest score."""
    rows = table.of(image)
    planes = list(planes_of(image))
    if len(rows) != len(planes):
        there = f"{counted(len(rows), 'row')} of decisions, and {counted(len(planes), 'plane')}"
        yield f"{table.name}: {image.source.name} has {there}"
    expected = [{"path": image.source.path, **plane} for plane in planes[: len(rows)]]
    for column in expected[0] if expected else ():
        yield from table.unlike(column, rows[: len(expected)], [row[column] for row in expected])
    names = classes(image)
    scores = np.stack([table.columns[f"score_{name}"][rows] for name in names], axis=1).astype(np.float32)
    greatest = [None if np.isnan(row).any() else names[int(row.argmax())] for row in scores]
    yield from table.unlike("class", rows, greatest)


def choose(image: ImagePlan, kept: Kept, windows: int, draw: random.Random) -> tuple[list[int], list[str]]:
    """Return the planes of an image to make again, at the most as many as ``windows``, and what is left out."""
    name, count = image.source.name, image.source.planes
    if not is_small(image, kept):
        return [], [
            f"the scores of {name}, where maps of {times(kept.array.extents)} are joined: planes of up to {WHOLE} "
            f"pixels are made again, from up to {UNDER}"
        ]
    planes = sorted(draw.sample(range(count), min(windows, count)))
    left = count - len(planes)
    return planes, [
        f"the scores of {left} of the {count} planes of {name}; more --windows look at more"
    ] if left else []


def make_again(image: ImagePlan, kept: Kept, plane: int) -> Again:
    """Return what the layers make of a plane, from the raw input on."""
    after = image.after.doubted if image.after else ()
    operations = (*image.stack.doubted[: kept.place + 1], *after)
    extents, one = (*image.extents[: kept.place + 2], *[(1, 1)] * len(after)), whole((1, 1))
    return make_of(Reader(image, plane), operations, extents, one, one)


def compare(image: ImagePlan, table: Rows, made: Sequence[Again]) -> Iterator[str]:
    """Say which scores are not those of the planes that were made again."""
    rows = table.of(image)
    if len(rows) != image.source.planes:
        return  # `check` has said so
    for one, slack in zip(made, slack_of(made), strict=True):
        row = rows[one.plane : one.plane + 1]
        for name, expected, within in zip(classes(image), one.values.ravel(), slack.ravel(), strict=True):
            got = table.columns[f"score_{name}"][row]
            same = np.isclose(got, expected, rtol=0, atol=within, equal_nan=True)
            yield from table.wrong(f"score_{name}", row, ~same, [float(expected)].__getitem__)
