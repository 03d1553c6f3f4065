"""What every format of tables is: a writer of rows to a file, and a reader of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, BinaryIO

from pipeline.tables.columns import Column

TOGETHER = 2**16
"""Rows that are read or written at a time."""

Table = dict[str, list[Any]]
"""The values of each column by its name; None for none."""


class Writer(ABC):
    """Writes a table to a file, some rows at a time. A new format is one new file in this folder with a subclass.

    Parameters
    ----------
    file
        Open for writing.
    columns
        Of the table.
    about
        What holds for all of it: ``crs``, where its coordinates lie on Earth, and what was asked for.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column], about: Mapping[str, Any]) -> None:
        self.file = file
        self.columns = columns
        self.about = about

    @abstractmethod
    def add(self, rows: Table, *, flipped: bool = False) -> None:
        """Write some rows, of an image whose axis y is minus the world's, or is not."""

    @abstractmethod
    def close(self) -> None:
        """Write what the file ends with; the file stays open."""

    @staticmethod
    @abstractmethod
    def parts(file: BinaryIO) -> Iterator[Table]:
        """Give a table as it was written, some rows at a time; of no rows one part, with the columns that are told."""

    @classmethod
    def read(cls, file: BinaryIO) -> Table:
        """Return a table as it was written."""
        first, *others = cls.parts(file)
        for part, (name, values) in product(others, first.items()):
            values.extend(part[name])
        return first

    @staticmethod
    def about_of(file: BinaryIO) -> Mapping[str, Any]:
        """Return what a table says that holds for all of it; nothing in formats that have no place for it."""
        del file
        return {}

    @staticmethod
    def check(crs: set[str]) -> None:
        """Raise `OutputError` where a table whose images lie in these reference systems cannot be written."""
        del crs
