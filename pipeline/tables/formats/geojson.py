"""GeoJSON (RFC 7946): a point for each row, for QGIS and other programs that know places on Earth."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from pipeline.errors import OutputError
from pipeline.tables.columns import Column
from pipeline.tables.formats.base import Table, Writer

_CODE = re.compile(r"EPSG:(\d+)")


class GeoJson(Writer):
    """A feature collection, a feature a line; coordinates are the world's x and y, all else are properties.

    Of images on Earth they are those of the reference system, which is named in the member ``crs`` of the format's
    first version (2008), as GDAL and QGIS read it; of others (x, y) in the units of the image. Those GDAL takes for
    degrees, whatever ``crs`` says: in QGIS the layer's CRS is to be set to none.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[Column], about: Mapping[str, Any]) -> None:
        super().__init__(file, columns, about)
        self._begun = False
        head: dict[str, Any] = {"type": "FeatureCollection"}
        if crs := about.get("crs"):
            head["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs.partition(':')[2]}"}}
        self.file.write(json.dumps(head)[:-1].encode() + b', "features": [')

    def add(self, rows: Table, *, flipped: bool = False) -> None:
        """Write some rows; where y is flipped, with the world's own."""
        sign = -1.0 if flipped else 1.0
        names = [column.name for column in self.columns if column.name not in ("world_y", "world_x")]
        for n in range(len(rows["x"])):
            point = [rows["world_x"][n], sign * rows["world_y"][n]]
            told = {name: _plain(rows[name][n]) for name in names}
            feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": point}, "properties": told}
            self.file.write((",\n" if self._begun else "\n").encode() + json.dumps(feature, allow_nan=False).encode())
            self._begun = True

    def close(self) -> None:
        """Write the end."""
        self.file.write(b"\n]}\n")

    @staticmethod
    def parts(file: BinaryIO) -> Iterator[Table]:
        """Give a table as it was written, in one; of images on Earth ``world_y`` is the world's own."""
        rows = json.load(file)["features"]
        points = [row["geometry"]["coordinates"] for row in rows]
        table: Table = {"world_x": [x for x, _ in points], "world_y": [y for _, y in points]}
        names = rows[0]["properties"] if rows else ()
        table |= {name: [row["properties"][name] for row in rows] for name in names}
        if "score" in table:  # JSON has no infinity, and no peak is NaN or minus that
            table["score"] = [math.inf if score is None else score for score in table["score"]]
        yield table

    @staticmethod
    def check(crs: set[str]) -> None:
        """Raise `OutputError` for several reference systems, and for one that has no EPSG code."""
        if len(crs) > 1:
            raise OutputError(
                f"output.detections.format: a GeoJSON file is of one coordinate reference system, and the images are "
                f"of {len(crs)} ({', '.join(sorted(c or 'none' for c in crs))}); take parquet or csv, or a run for each"
            )
        for code in crs - {""}:
            if not _CODE.fullmatch(code):
                raise OutputError(
                    "output.detections.format: GeoJSON names a coordinate reference system by its EPSG code, and the "
                    f"images' has none ({code[:40]}…); take parquet or csv"
                )


def _plain(value: Any) -> Any:
    """Return a value that JSON has; None for numbers that are not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
