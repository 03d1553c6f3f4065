"""An image, a map, or a region of one, to a file that other programs read."""

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zarr

from pipeline.describe import parse_size, size, times
from pipeline.errors import HaloflowError, InputError, OutputError
from pipeline.exporting.base import Selection
from pipeline.exporting.formats import WRITERS
from pipeline.geometry import Interval, Region
from pipeline.storage.images import open_image
from pipeline.storage.place import Place
from pipeline.storage.source import Source

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
    extents
        Of (y, x), in pixels.
    dtype
        The type of the numbers in the file.
    bytes
        What the file takes.
    notes
        What could not be written, a line each.
    """

    path: str
    channels: tuple[str, ...]
    extents: Pair
    dtype: str
    bytes: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        told = f"{self.path}: {len(self.channels)} × {times(self.extents)} {self.dtype}, {size(self.bytes)}"
        return "\n".join([told, *(f"note: {note}" for note in self.notes)])


def export(
    image: str,
    path: str | Path,
    *,
    channels: Sequence[str | int] = (),
    region: tuple[Pair, Pair] | None = None,
    level: int = 0,
    window: tuple[float, float] | None = None,
    memory: str | int = "1GB",
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Exported:
    """Write an image or a map, or a region of it, to one file, whose ending says the format.

    ``.tif`` is tiled and compressed, OME-TIFF with the sizes of pixels and the channels' names, or a GeoTIFF where the
    image lies on Earth; ``.npy`` is an array (c, y, x). Both hold the stored numbers and are written band by band.
    ``.png`` has 8 bits: one channel, or red, green and blue. The file appears under its name when it is complete.

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
    """
    out = Path(path)
    writer = WRITERS.get(out.suffix.lower())
    if writer is None:
        raise OutputError(f"{path}: files of this ending cannot be written; expected {', '.join(WRITERS)}")
    if out.is_dir() or not out.parent.is_dir():
        raise OutputError(f"{path}: {'is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")
    if out.exists() and not overwrite:
        raise OutputError(f"{path} exists already; give --overwrite to replace it, or another name")
    place = Place.of(image, storage_options)
    source = open_image(place, level)
    attributes = _attributes(place)
    selected = Selection(
        source=source,
        places=tuple(_channel(source, channel) for channel in channels) or tuple(range(len(source.channels))),
        region=_region(source, region),
        window=_window(window) or _shown(attributes, source, channels),
        geo=source.geo,
        limit=parse_size(memory),
    )
    partial = out.with_name(f".{out.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{out.suffix}")
    try:
        notes = writer.write(selected, partial)
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    dtype = "uint8" if out.suffix.lower() == ".png" else source.dtype
    return Exported(str(path), selected.channels, selected.shape[1:], dtype, out.stat().st_size, notes)


def _attributes(place: Place) -> dict[str, Any]:
    try:
        return dict(zarr.open(place.store(), mode="r").attrs)
    except HaloflowError:
        raise
    except Exception:  # noqa: BLE001 - it was opened before, so this is another reading of the same
        return {}


def _channel(source: Source, channel: str | int) -> int:
    if isinstance(channel, str) and channel in source.channels:
        return source.channels.index(channel)
    if str(channel).isdecimal() and int(channel) < len(source.channels):
        return int(channel)
    raise InputError(f"{source.path}: has no channel {channel!r}; it has {', '.join(source.channels[:20])}")


def _region(source: Source, region: tuple[Pair, Pair] | None) -> Region:
    if region is None:
        return tuple(Interval(0, extent) for extent in source.extents)
    for axis, (start, stop), extent in zip("yx", region, source.extents, strict=True):
        if not 0 <= start < stop <= extent:
            raise InputError(
                f"{source.path}: region {axis} {start}:{stop} does not lie in the image, which has 0:{extent} there"
            )
    return tuple(Interval(*pair) for pair in region)


def _window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    if window is not None and window[0] == window[1]:
        raise InputError(f"window {window[0]:g}:{window[1]:g}: black and white must differ")
    return window


def _shown(attributes: dict[str, Any], source: Source, channels: Sequence[str | int]) -> tuple[float, float] | None:
    """Return what an image says viewers should show of the first channel that is wanted."""
    try:
        described = attributes.get("ome", attributes)["omero"]["channels"]
        told = described[_channel(source, channels[0]) if channels else 0]["window"]
        low, high = float(told["start"]), float(told["end"])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (low, high) if low < high else None
