"""The output store: one Zarr v3 group a run, in it a group an image, in that an OME-Zarr image for each kept layer.

The run's own things lie under one reserved name in the root's attributes. What a run has made is complete when its
``complete`` mark is true; that mark is written last.
"""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.errors import OutputError
from pipeline.geometry import Region
from pipeline.pixels import Encoding
from pipeline.storage.cache import ChunkCache
from pipeline.storage.codecs import Codec
from pipeline.storage.handle import Handle
from pipeline.storage.images import RESERVED
from pipeline.storage.ome import describe


@dataclass(frozen=True)
class MapArray:
    """One kept layer of one image as it is stored: an OME-Zarr image (c, y, x), its axes y and x described here."""

    image: str
    layer: str
    channels: tuple[str, ...]
    extents: tuple[int, int]
    chunks: tuple[int, int]
    encoding: Encoding
    compression: Codec
    scale: tuple[float, float]
    translation: tuple[float, float]
    units: tuple[str | None, str | None]
    fill: float = 0
    """The stored number of pixels whose chunk is not written."""
    shards: tuple[int, int] | None = None
    """Where chunks lie together in larger objects, the pixels of one."""

    @property
    def unit(self) -> tuple[int, int]:
        """The pixels (y, x) of what is written as one object: a shard where there are shards, else a chunk."""
        return self.shards or self.chunks

    @property
    def group(self) -> str:
        """The path of the map's group in the store."""
        return f"{self.image}/{self.layer}"

    def attributes(self, window: tuple[float, float]) -> dict[str, Any]:
        """Return the OME-Zarr attributes; ``window`` is the range of map values that a viewer should show."""
        if self.encoding.is_scaled:
            at = self.encoding.attributes
            window = tuple(sorted((v - at["add_offset"]) / at["scale_factor"] for v in window))  # type: ignore[assignment]
        return describe(f"{self.image} {self.layer}", self.channels, self.scale, self.translation, self.units, window)


def check(store: str, inputs: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a target that exists, is not ours to overwrite, or overlaps an input; touches nothing."""
    if "://" in store:
        raise OutputError(f"output.store: {store} is a URL; this version writes local paths")
    target = Path(store).resolve()
    for path in inputs:
        source = Path(path).resolve()
        if target == source or source in target.parents:
            raise OutputError(f"output.store: {store} lies inside the input {path}; name a place outside of it")
        if target in source.parents:
            raise OutputError(f"output.store: the input {path} lies inside {store}; name another place")
    above = next(parent for parent in target.parents if parent.exists())
    if not above.is_dir():
        raise OutputError(f"output.store: {above} is a file, so {store} cannot be made")
    if not os.access(above, os.W_OK):
        raise OutputError(f"output.store: {above} cannot be written, so {store} cannot be made")
    if not target.exists():
        return
    if not overwrite:
        raise OutputError(f"output.store: {store} exists already; give --overwrite to replace it, or another name")
    if not _is_ours(target):
        raise OutputError(
            f"output.store: {store} exists and was not made by haloflow, so --overwrite will not delete it; "
            "name another place, or remove it yourself"
        )


def _is_ours(target: Path) -> bool:
    try:
        return RESERVED in zarr.open_group(target, mode="r").attrs
    except Exception:  # noqa: BLE001 - whatever stands there, it is no store of ours
        return False


def create(store: str, maps: Sequence[MapArray], record: dict[str, Any]) -> None:
    """Make the store and every array in it, empty; an older run of ours is removed once the new one stands."""
    target = Path(store)
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        _fill(staged, maps, record)
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
    except Exception as error:
        raise OutputError(f"output.store: {store} cannot be made: {error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)  # an interrupt, too, leaves nothing half made


def _fill(staged: Path, maps: Sequence[MapArray], record: dict[str, Any]) -> None:
    root = zarr.create_group(staged, zarr_format=3, attributes={RESERVED: {**record, "complete": False}})
    for image in dict.fromkeys(m.image for m in maps):
        root.create_group(image)
    for m in maps:
        group = root.create_group(m.group, attributes=m.attributes((-1.0, 1.0)))
        group.create_array(
            "0",
            shape=(len(m.channels), *m.extents),
            chunks=(1, *m.chunks),
            shards=(1, *m.shards) if m.shards else None,
            dtype=m.encoding.dtype,
            compressors=m.compression.made(),
            fill_value=m.fill,
            dimension_names=("c", "y", "x"),
            attributes=dict(m.encoding.attributes),
        )


def write(store: str, m: MapArray, region: Region, units: NDArray[Any], cache: ChunkCache | None = None) -> None:
    """Write the units of a map that a region (y, x) covers: ``units`` is (rows, columns, maps, y, x).

    The array is the one that the ``cache`` of a run has open, or is opened.
    """
    if not units.size:
        return
    path = f"{store}/{m.group}/0"
    array = cache.open(path, "r+") if cache else Handle.open(path, "r+")
    first = [i.start // size for i, size in zip(region, m.unit, strict=True)]
    for row, column, c in np.ndindex(units.shape[:3]):
        array.write((c, first[0] + row, first[1] + column), units[row, column, c : c + 1])


def finish(store: str, windows: dict[MapArray, tuple[float, float]], record: dict[str, Any]) -> None:
    """Write what is known at the end: the range of each map, and the run's record with its mark."""
    root = zarr.open_group(store, mode="r+")
    for m, window in windows.items():
        root[m.group].attrs.update(m.attributes(window))
    root.attrs.update({RESERVED: record})
