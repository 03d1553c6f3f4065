"""The end of a run for its decisions: what the layers from the one on that joins whole maps make of each plane."""

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import HaloflowError
from pipeline.planning import ImagePlan, Plan
from pipeline.stack import BoundStack, run_joined
from pipeline.storage.findings import TABLES
from pipeline.tables.columns import Column
from pipeline.tables.formats import FORMATS
from pipeline.tables.formats.base import Table
from pipeline.tables.sums import Sums

SHOWN = 20
"""Rows that a report repeats, at the most."""


@dataclass(frozen=True)
class Decided:
    """What a table of decisions says: its rows, how many of each class there are, and the first of them."""

    rows: int
    classes: dict[str, int]
    first: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "first": list(self.first)}

    def lines(self) -> list[str]:
        """Say it in words."""
        told = ", ".join(f"{label or 'undecided'} {count}" for label, count in self.classes.items())
        lines = [f"decided: {self.rows} planes of images: {told}"]
        for row in self.first:
            scores = ", ".join(
                f"{k.removeprefix('score_')} {_short(v)}" for k, v in row.items() if k.startswith("score_")
            )
            at = "".join(f", {axis} {row[axis]}" for axis in ("t", "z") if row.get(axis) is not None)
            lines.append(f"  {row['image']}{at}: {row['class'] or 'undecided'} ({scores})")
        if self.rows > len(self.first):
            lines.append(f"  and {self.rows - len(self.first)} more: see the table")
        return lines


def _short(score: float | None) -> str:
    return "none" if score is None else f"{score:.3g}"


def file_of(plan: Plan) -> str | None:
    """Return the name of a run's table of decisions, if it makes one."""
    return f"decisions.{plan.config['output']['decisions']['format']}" if plan.images[0].after else None


def columns(outer: Sequence[str], image: ImagePlan) -> tuple[Column, ...]:
    """Return the columns of decisions on images that have planes along the ``outer`` axes.

    ``class`` is the map of the greatest score, none where a score is NaN; a column for each map has its score.
    """
    return (
        Column("image", "text"),
        Column("path", "text"),
        *(Column(name, "whole") for name in outer),
        Column("class", "text"),
        *(Column(f"score_{name}", "float32") for name in classes(image)),
    )


def classes(image: ImagePlan) -> tuple[str, ...]:
    """Return the names of the last layer's maps."""
    return image.after.operations[-1].maps if image.after else ()


def decide(image: ImagePlan, sums: Sequence[Sequence[Sums]], planes: Sequence[dict[str, Any]]) -> Table:
    """Return the rows of an image, from what each map sums up to on each plane, and where each plane is."""
    table: Table = {name: [] for name in ("image", "path", *(planes[0] if planes else ()), "class")}
    table |= {f"score_{name}": [] for name in classes(image)}
    if image.after is None:
        return table
    for parts, plane in zip(sums, planes, strict=True):
        maps = joined(image.after, parts).ravel()
        label = None if np.isnan(maps).any() else classes(image)[int(maps.argmax())]
        row = {"image": image.source.name, "path": image.source.path, **plane, "class": label}
        row |= {f"score_{name}": score for name, score in zip(classes(image), maps.tolist(), strict=True)}
        for name, value in row.items():
            table[name].append(value)
    return table


def joined(after: BoundStack, sums: Sequence[Sums]) -> NDArray[np.float32]:
    """Return what layers make (c, 1, 1), the first of which joins whole maps that sum up to this."""
    whole = np.array([_joined(part, str(after.operations[0].options["op"])) for part in sums])
    one = (whole.astype(np.float32) + np.float32(0)).reshape(-1, 1, 1)
    return run_joined(after, one, len(after.operations) - 1)


def _joined(sums: Sums, op: str) -> float:
    if sums.missing or not sums.pixels:
        return math.nan
    return sums.largest[0] if op == "max" and sums.largest else sums.mean


def can_be_read(plan: Plan) -> bool:
    """Say whether the table of a run says anything, if it makes one: the report repeats it."""
    try:
        return read(plan) is not None or file_of(plan) is None
    except HaloflowError:  # a place that cannot be reached says nothing of the file
        raise
    except Exception:  # noqa: BLE001 - whatever a damaged file makes its reader raise
        return False


def read(plan: Plan) -> Decided | None:
    """Return what the table of a run says, if it made one."""
    name = file_of(plan)
    stored = plan.store.read(f"{TABLES}/{name}") if name else None
    if name is None or stored is None:
        return None
    counts, rows = Counter[str](), list[dict[str, Any]]()
    for table in FORMATS[name.rpartition(".")[2]].parts(io.BytesIO(stored)):
        counts.update(label or "" for label in table["class"])
        first = (table[column][: SHOWN - len(rows)] for column in table)
        rows += [dict(zip(table, values, strict=True)) for values in zip(*first, strict=True)]
    return Decided(counts.total(), dict(sorted(counts.items())), tuple(rows))
