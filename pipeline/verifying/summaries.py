"""Verify the table of summaries: which rows it has, and what they say, against windows of maps that were made again."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from pipeline.kept import Kept
from pipeline.planning import ImagePlan
from pipeline.sections import Summaries
from pipeline.tables.sums import edges_of
from pipeline.verifying.again import Again
from pipeline.verifying.reference import Wide
from pipeline.verifying.tables import Rows, planes_of


def check(image: ImagePlan, table: Rows) -> Iterator[str]:
    """Say what is wrong with the rows of an image: one for each plane and map of each layer, in this order."""
    looked = sorted((kept for kept in image.made if kept.watch and kept.watch.summaries), key=lambda kept: kept.place)
    expected = [
        {"layer": kept.array.layer, "feature": feature, **plane}
        for kept in looked
        for plane, feature in product(planes_of(image), kept.array.channels)
    ]
    rows = table.of(image)
    if len(rows) != len(expected):
        yield f"{table.name}: {image.source.name} has {len(rows)} rows of summaries, and {len(expected)} maps"
        return
    for column in expected[0]:
        yield from table.unlike(column, rows, [row[column] for row in expected])


def compare(
    image: ImagePlan, kept: Kept, wanted: Summaries, table: Rows, windows: Sequence[Again], slacks: Sequence[Wide]
) -> Iterator[str]:
    """Say what in the rows of a layer cannot be, after windows of it; more where one is a plane."""
    rows = [n for n in table.of(image).tolist() if table.columns["layer"][n] == kept.array.layer]
    maps = len(kept.array.channels)
    if len(rows) != maps * image.source.planes:
        return  # `check` has said so
    for tell in (_wrong, _miscounted, _misplaced):
        for (again, slack), number in product(zip(windows, slacks, strict=True), range(maps)):
            at = rows[again.plane * maps + number]
            row = {name: table.value(name, at) for name in table.columns}
            where = f"{table.name}: row {at}, {kept.array.where(again.plane, again.seen)} of {row['feature']}"
            told = tell(image, kept, wanted, row, again, again.values[number], slack[number])
            yield from (f"{where}: {reason}" for reason in told)


def _misplaced(
    image: ImagePlan, kept: Kept, _: Summaries, row: dict[str, Any], again: Again, values: Wide, slack: Wide
) -> Iterator[str]:
    """Say what is wrong with the place of a map's maximum, as far as a window of it tells."""
    if math.isnan(row["max"]):
        return
    at: list[int] = []
    for axis, (name, window) in enumerate(zip("yx", image.stack.window(kept.place), strict=True)):
        start = row[f"max_{name}"] - image.source.offset[axis] - (window.span - 1) / 2 + window.pad_lo
        size, world = kept.array.scale[axis], row[f"max_world_{name}"]
        lies = kept.array.translation[axis] + size * start / window.stride
        if not math.isclose(world, lies, rel_tol=1e-12, abs_tol=1e-6 * abs(size)):
            yield f"the table's maximum is placed at {world:g} in the world, and lies at {lies:g}"
        first, extent = int(start // window.stride) if math.isfinite(start) else 0, kept.array.extents[axis]
        near = np.arange(max(0, first), min(first + window.span // window.stride + 2, extent))
        cut = image.stack.cut(kept.place, axis, near, image.extents)
        at += near[near * window.stride - cut == start].tolist()
    if len(at) < 2:
        yield "the table's maximum is placed beside the pixels of the map"
        return
    y, x = (p - i.start for p, i in zip(at, again.seen, strict=True))
    if 0 <= y < values.shape[0] and 0 <= x < values.shape[1]:
        value = values[y, x]
        if value != row["max"] and not abs(value - row["max"]) <= slack[y, x]:
            yield f"the table's maximum is {row['max']:g}, and the map's value there {value:g}"


def _wrong(
    _: ImagePlan, kept: Kept, wanted: Summaries, row: dict[str, Any], again: Again, values: Wide, slack: Wide
) -> Iterator[str]:
    del again
    pixels, there = math.prod(kept.array.extents), ~np.isnan(values)
    numbers, slack = values[there], slack[there]
    if row["pixels"] != pixels:
        yield f"the table counts {row['pixels']} pixels of {pixels}"
    if numbers.size and not (numbers - slack).max() <= row["max"]:
        yield f"{numbers.max():g} is more than the table's maximum of {row['max']}"
    if values.size < pixels or not np.isfinite(numbers).all() or not numbers.size:
        return
    if row["nan"] != pixels - numbers.size:
        yield f"the table counts {row['nan']} pixels that are NaN of {pixels - numbers.size}"
    spread = math.sqrt((slack**2).mean())  # of what the deviation is a norm of
    for name, found, within in (
        ("max", numbers.max(), (numbers + slack).max() - numbers.max()),
        ("mean", numbers.mean(), slack.mean()),
        ("std", numbers.std(), spread),
    ):
        if not abs(row[name] - found) <= within:
            yield f"the table's {name} is {row[name]:g}, and the map's {found:g}"
    if wanted.over is not None:
        least, most = ((numbers + s >= wanted.over).mean() for s in (-slack, slack))
        if not least <= row["over"] <= most:
            yield f"the table has {row['over']:g} of the pixels at least {wanted.over:g}, and the map {least:g}"


def _miscounted(
    _: ImagePlan, kept: Kept, wanted: Summaries, row: dict[str, Any], again: Again, values: Wide, slack: Wide
) -> Iterator[str]:
    """Say where a histogram is not that of a whole map."""
    del again
    if wanted.histogram and values.size == math.prod(kept.array.extents):
        there = ~np.isnan(values)
        edges, counts = edges_of(wanted), np.cumsum(row["histogram"])
        low, high = (np.sort(values[there] + s) for s in (-slack[there], slack[there]))
        most = low.searchsorted(edges[1:], "right") - high.searchsorted(edges[0], "left")
        least = high.searchsorted(edges[1:], "left") - low.searchsorted(edges[0], "right")
        for n in np.flatnonzero((counts < least) | (counts > most))[:1].tolist():
            yield f"the table counts {counts[n]} pixels from {edges[0]:g} to {edges[n + 1]:g}, and there are {most[n]}"
