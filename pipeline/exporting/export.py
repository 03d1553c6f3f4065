"""An image, a map, or a region of one, to a file that other programs read."""

import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import index
from pathlib import Path
from typing import Any

import zarr

from pipeline.describe import parse_size, size, times
from pipeline.errors import HaloflowError, InputError, OutputError, yes_or_no
from pipeline.exporting.base import Selection
from pipeline.exporting.formats import WRITERS
from pipeline.storage.geo import KEY
from pipeline.storage.images import open_image
from pipeline.storage.place import Place
from pipeline.storage.source import Source
from pipeline.storage.target import check_file, recorded

Pair = tuple[int, int]


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Parameters
    ----------
    path
        The file.
    channels
        The names of the channels.
    shape
        Of (t, c, z, y, x), in pixels.
    dtype
        The type of the numbers in the file.
    bytes
        What the file takes.
    notes
        What could not be written, and whether some of it may not be there yet, a line each.
    """

    path: str
    channels: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        shape = self.shape if self.shape[0] * self.shape[2] > 1 else (self.shape[1], *self.shape[3:])
        told = f"{self.path}: {times(shape)} {self.dtype}, {size(self.bytes)}"
        return "\n".join([told, *(f"note: {note}" for note in self.notes)])


def export(
    image: str | Path,
    path: str | Path,
    *,
    channels: Sequence[str | int] = (),
    region: tuple[Pair, Pair] | None = None,
    level: int = 0,
    t: int | None = None,
    z: int | None = None,
    window: tuple[float, float] | None = None,
    memory: str | int = "1GB",
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Exported:
    """Write an image or a map, or a region of it, to one file, whose ending says the format.

    ``.tif`` is tiled and compressed: OME-TIFF with the channels' names, the sizes of pixels and the place of the first
    one's centre (``PositionX``, ``Y`` and ``Z`` and ``DeltaT`` of each plane; what has no unit counts in pixels), or a
    GeoTIFF where the image lies on Earth. ``.npy`` is an array (c, y, x), or (t, c, z, y, x) of several planes. Both
    hold the stored numbers and are written band by band. ``.png`` has 8 bits: one plane of one channel, or of red,
    green and blue. The file appears under its name when it is complete.

    Parameters
    ----------
    image
        A path or URL of an OME-Zarr image (``results/x.zarr/image/pool``) or of a Zarr array.
    path
        The file.
    channels
        Names or numbers of the channels, in this order; none for all.
    region
        ((y0, y1), (x0, x1)) in pixels of the level; None for all of it.
    level
        Of the image's pyramid.
    t, z
        Of the planes along t and z, the number of one; None for all.
    window
        For PNG, the numbers to show as black and white; None for what the image says viewers should show.
    memory
        Roughly what may be held at once beside the program itself, in bytes or as in "2GB".
    overwrite
        Whether a file that stands at ``path`` is replaced.
    storage_options
        What opens ``image`` where it is a URL.

    Raises
    ------
    InputError
        The image cannot be read, or has no such level, channel or region, or is too large for a PNG.
    OutputError
        The file exists, cannot be written, or its ending is of no format that can be.
    PlanError
        ``memory`` is not a number of bytes.
    TypeError
        ``overwrite`` is neither True nor False.
    """
    yes_or_no(overwrite=overwrite)
    out = Path(path)
    writer = WRITERS.get(out.suffix.lower())
    if writer is None:
        raise OutputError(f"{path}: files of this ending cannot be written; expected {', '.join(WRITERS)}")
    if window is not None and out.suffix.lower() != ".png":
        raise OutputError(f"{path}: only a PNG shows numbers between black and white; leave the window out")
    check_file(out, overwrite=overwrite)
    place = Place.of(str(image), storage_options)
    source = _opened(place, level)
    attributes = _attributes(place)
    source = _planes(_region(_channels(source, channels), region), {"t": t, "z": z})
    given = _window(window)
    windows = tuple(given or _shown(attributes, pick) for pick in source.picks)
    selected = Selection(source, windows, parse_size(memory))
    partial = out.with_name(f".{out.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{out.suffix}")
    try:
        notes = tuple(f"{path}: {note}" for note in writer.write(selected, partial))
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    dtype = "uint8" if out.suffix.lower() == ".png" else source.dtype
    if out.suffix.lower().startswith(".tif") and source.geo is None and isinstance(attributes.get(KEY), dict):
        notes += (f"{path}: its place on Earth is left out, for its attribute {KEY!r} cannot be used",)
    if source.scaled and (given or out.suffix.lower() != ".png"):
        what = "black and white are" if given else "holds the"
        notes += (f"{path}: {what} numbers as they are stored, which stand for others: {source.standing_for}",)
    if not _is_whole(str(image), storage_options):
        notes = (f"{image}: its run is not complete: what is missing looks like empty space", *notes)
    return Exported(str(path), source.channels, selected.shape, dtype, out.stat().st_size, notes)


def _is_whole(image: str, options: Mapping[str, Any] | None) -> bool:
    """Say whether an image is none of a run's maps, or the run is complete."""
    path = image.rstrip("/") if "://" in image else str(Path(image).resolve())
    store, *inner = path.rsplit("/", 2)
    if len(inner) < 2 or store.endswith((":", "/")):
        return True
    try:
        record = recorded(Place.of(store, options))
    except HaloflowError:  # who may read an image may not read what lies above it
        return True
    return record is None or bool(record.get("complete"))


def _attributes(place: Place) -> dict[str, Any]:
    try:
        return dict(zarr.open(place.store(), mode="r").attrs)
    except HaloflowError:
        raise
    except Exception:  # noqa: BLE001 - it was opened before, so this is another reading of the same
        return {}


def _opened(place: Place, level: int) -> Source:
    if level < 0:  # a level that counts from the coarsest
        raise InputError(f"{place}: there is no level {level}; levels are counted from 0, the finest")
    return open_image(place, level)


def _channels(source: Source, channels: Sequence[str | int]) -> Source:
    if isinstance(channels, str | int):  # 0 is a channel, and not none
        raise InputError(f"channels {channels!r}: expected a list of names or numbers")
    if not len(channels):
        return source
    numbers = [_channel(source, channel) for channel in channels]
    return replace(
        source,
        channels=tuple(source.channels[n] for n in numbers),
        picks=tuple(source.picks[n] for n in numbers),
    )


def _channel(source: Source, channel: str | int) -> int:
    if isinstance(channel, str) and channel in source.channels:
        return source.channels.index(channel)
    if str(channel).isdecimal() and int(channel) < len(source.channels):
        return int(channel)
    raise InputError(f"{source.path}: has no channel {channel!r}; it has {', '.join(source.channels[:20])}")


def _region(source: Source, region: tuple[Pair, Pair] | None) -> Source:
    if region is None:
        return source
    try:
        (y0, y1), (x0, x1) = ((index(start), index(stop)) for start, stop in region)
    except (TypeError, ValueError):
        raise InputError(f"region {region!r}: expected ((y0, y1), (x0, x1)) in whole pixels") from None
    for axis, (start, stop), extent in zip("yx", ((y0, y1), (x0, x1)), source.extents, strict=True):
        if not 0 <= start < stop <= extent:
            raise InputError(
                f"{source.path}: region {axis} {start}:{stop} does not lie in the image, which has 0:{extent} there"
            )
    (top, left), (tall, wide), (y, x) = source.offset, source.scale, source.translation
    return replace(
        source,
        offset=(top + y0, left + x0),
        extents=(y1 - y0, x1 - x0),
        translation=(y + y0 * tall, x + x0 * wide),
    )


def _planes(source: Source, wanted: dict[str, int | None]) -> Source:
    extents = {axis.name: axis.extent for axis in source.outer}
    for name, number in wanted.items():
        if number is not None and not 0 <= number < extents.get(name, 1):
            raise InputError(
                f"{source.path}: has no plane {number} along {name}; it has {extents.get(name, 1)}, counted from 0"
            )
    outer = []
    for axis in source.outer:
        number = wanted[axis.name]
        if number is not None:
            shift = axis.scale * number
            axis = replace(axis, extent=1, first=axis.first + number, translation=axis.translation + shift)  # noqa: PLW2901
        outer.append(axis)
    return replace(source, outer=tuple(outer))


def _window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    if window is not None and (window[0] == window[1] or not all(map(math.isfinite, window))):
        raise InputError(f"window {window[0]:g}:{window[1]:g}: black and white must be finite, and must differ")
    return window


def _shown(attributes: dict[str, Any], channel: int) -> tuple[float, float] | None:
    """Return what an image says viewers should show of a channel."""
    try:
        told = attributes.get("ome", attributes)["omero"]["channels"][channel]["window"]
        low, high = float(told["start"]), float(told["end"])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (low, high) if low < high and math.isfinite(high - low) else None
