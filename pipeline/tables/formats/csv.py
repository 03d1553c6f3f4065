"""CSV: for everything else, and for napari, which takes it as points: their world coordinates are ``axis-0``, …"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, BinaryIO

from pipeline.tables.columns import Column
from pipeline.tables.formats.base import TOGETHER, Table, Writer


class Csv(Writer):
    """CSV with a header; world coordinates come first, as napari names them (t, z, y, x: those there are).

    napari takes all rows for one layer of points, and the other columns for its features: of several images the rows of
    one are to be cut out first. A table of no rows it does not open.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column], about: Mapping[str, Any]) -> None:
        super().__init__(file, columns, about)
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        self._writer = csv.writer(_Lines(self._text))
        axes = [column.name for column in columns if column.name.startswith("world_")]
        self._names = [*axes, *(column.name for column in columns if column.name not in axes)]
        self._writer.writerow([f"axis-{n}" if n < len(axes) else name for n, name in enumerate(self._names)])

    def add(self, rows: Table, *, flipped: bool = False) -> None:
        """Write some rows."""
        del flipped
        self._writer.writerows(zip(*(rows[name] for name in self._names), strict=True))

    def close(self) -> None:
        """Write what waits."""
        self._text.detach()

    @staticmethod
    def parts(file: BinaryIO) -> Iterator[Table]:
        """Give a table as it was written, numbers as numbers, some rows at a time."""
        text = io.TextIOWrapper(file, "utf-8", newline="")
        rows = csv.reader(text)
        head = next(rows, [])
        axes = [name for name in head if name.startswith("axis-")]
        outer = [name for name in ("t", "z") if name in head]
        world = dict(zip(axes, [f"world_{name}" for name in (*outer, "y", "x")], strict=True)) if axes else {}
        some = list(islice(rows, TOGETHER))
        while True:
            yield {world.get(name, name): [_value(name, row[n]) for row in some] for n, name in enumerate(head)}
            if not (some := list(islice(rows, TOGETHER))):
                break
        text.detach()


class _Lines:
    """Ends rows with a line feed alone; names with a carriage return are quoted only where rows end with one."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def write(self, row: str) -> None:
        """Write a row, which ends as `csv.writer` ends it by default."""
        self._text.write(row.removesuffix("\r\n") + "\n")


def _value(name: str, text: str) -> str | int | float | None:
    if name in ("image", "path", "layer", "feature"):
        return text
    if name == "class":
        return text or None
    if not text:
        return None
    return int(text) if name in ("t", "z", "map_y", "map_x") else float(text)
