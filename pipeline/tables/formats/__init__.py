"""The formats of tables, by the names that the config has for them."""

from pipeline.sections import Detections, Summaries
from pipeline.tables.formats.base import Writer
from pipeline.tables.formats.csv import Csv
from pipeline.tables.formats.geojson import GeoJson
from pipeline.tables.formats.parquet import Parquet

FORMATS: dict[str, type[Writer]] = {"parquet": Parquet, "csv": Csv, "geojson": GeoJson}


def check(wanted: tuple[Detections | None, Summaries | None], crs: set[str]) -> None:
    """Raise `OutputError` where the tables that are wanted cannot be written, before any work.

    ``crs`` are the reference systems that the images lie in, as far as they are known; empty for one that lies in none.
    """
    detections, summaries = wanted
    if detections:
        FORMATS[detections.format].check(crs)
    if summaries:
        Parquet.check(crs)
