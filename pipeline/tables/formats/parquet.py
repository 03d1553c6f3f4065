"""Parquet, through pyarrow (the extra ``tables``): for pandas, Polars, DuckDB, Spark, R and QGIS."""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, BinaryIO

from pipeline.errors import OutputError
from pipeline.tables.columns import Column
from pipeline.tables.formats.base import TOGETHER, Table, Writer


def pyarrow() -> tuple[Any, Any]:
    """Return the package and its part for Parquet; raises `OutputError` naming the extra where it is not installed."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise OutputError("tables in Parquet need pyarrow: pip install 'haloflow[tables]'") from None


class Parquet(Writer):
    """Parquet, compressed by zstd; ``about`` stands in the schema's metadata under ``haloflow``."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column], about: Mapping[str, Any]) -> None:
        super().__init__(file, columns, about)
        arrow, parquet = pyarrow()
        kinds = {
            "text": arrow.string(),
            "whole": arrow.int64(),
            "float32": arrow.float32(),
            "float64": arrow.float64(),
            "counts": arrow.list_(arrow.int64()),
        }
        fields = [arrow.field(column.name, kinds[column.kind]) for column in columns]
        self._schema = arrow.schema(fields, metadata={"haloflow": json.dumps(about, sort_keys=True)})
        self._table = arrow.table
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting: Table = {column.name: [] for column in columns}

    def add(self, rows: Table, *, flipped: bool = False) -> None:
        """Write some rows, whole groups at a time: whatever the tasks were, the file is the same."""
        del flipped
        for name, values in self._waiting.items():
            values.extend(rows[name])
        count = len(next(iter(self._waiting.values())))
        for start in range(0, count // TOGETHER * TOGETHER, TOGETHER):
            self._write({name: values[start : start + TOGETHER] for name, values in self._waiting.items()})
        self._waiting = {name: v[count // TOGETHER * TOGETHER :] for name, v in self._waiting.items()}

    def close(self) -> None:
        """Write the rows that wait, and the footer."""
        self._write(self._waiting)
        self._writer.close()

    def _write(self, rows: Table) -> None:
        self._writer.write_table(self._table(rows, schema=self._schema))

    @staticmethod
    def parts(file: BinaryIO) -> Iterator[Table]:
        """Give a table as it was written, a group of rows at a time."""
        stored = pyarrow()[1].ParquetFile(file)
        for number in range(stored.num_row_groups):
            yield stored.read_row_group(number).to_pydict()
        if not stored.num_row_groups:
            yield {name: [] for name in stored.schema_arrow.names}

    @staticmethod
    def about_of(file: BinaryIO) -> Mapping[str, Any]:
        """Return what was asked for when the table was written."""
        told: Mapping[str, Any] = json.loads(pyarrow()[1].read_schema(file).metadata[b"haloflow"])
        return told

    @staticmethod
    def check(crs: set[str]) -> None:
        """Raise `OutputError` naming the extra where pyarrow is not installed."""
        del crs
        pyarrow()
