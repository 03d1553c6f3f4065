"""What an image file is to an ingest, and what a format has to say."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.describe import size
from pipeline.errors import HaloflowError, InputError

START = 32
"""How many of a file's first bytes tell its format."""

COLOURS = ("red", "green", "blue", "alpha")
GREY_ALPHA = ("0", "alpha")
UNITS = {
    "km": "kilometer",
    "hm": "hectometer",
    "m": "meter",
    "dm": "decimeter",
    "cm": "centimeter",
    "mm": "millimeter",
    "µm": "micrometer",
    "nm": "nanometer",
    "pm": "picometer",
    "fm": "femtometer",
    "Å": "angstrom",
    "in": "inch",
    "ft": "foot",
    "yd": "yard",
    "mi": "mile",
    "pc": "parsec",
}
"""OME's signs of lengths, and OME-Zarr's names."""
PIXEL = "pixel"
"""OME's sign of lengths that are counted in pixels; in OME-Zarr they have no unit."""
TIMES = {
    "s": "second",
    "ms": "millisecond",
    "µs": "microsecond",
    "ns": "nanosecond",
    "min": "minute",
    "h": "hour",
    "d": "day",
}
"""OME's signs of times, and OME-Zarr's names."""


@dataclass(frozen=True)
class Block:
    """A part of a plane: places along t and z, the channels, and intervals of pixels."""

    t: int
    c: slice
    z: int
    y: slice
    x: slice


@dataclass(frozen=True)
class Picture:
    """An open image file: what is in it, and a function from a block to its pixels (c, y, x).

    The function is called from several threads at once.
    """

    channels: tuple[str, ...]
    extents: tuple[int, int]
    dtype: str
    read: Callable[[Block], NDArray[Any]]
    times: int = 1
    depth: int = 1
    """Pixels along t and z."""
    deep: int = 0
    """Channels that are read together, and of which blocks are made; 0 for all of them."""
    tall: int = 1
    """Rows that have to be decoded together."""
    held: int = 0
    """Bytes that reading a block takes beside the block itself."""
    scale: dict[str, float] = field(default_factory=dict)
    """The size of a pixel along the axes of which it is known."""
    translation: dict[str, float] = field(default_factory=dict)
    """The place of the first pixel's centre, where it is not 0."""
    units: dict[str, str] = field(default_factory=dict)
    """In what, along the axes of which it is known."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What else is kept in the image's attributes."""
    missing: int = 0
    """Strips or tiles that the file leaves out."""
    nodata: float | None = None
    """The number that stands for no data, if the file names one: a pixel like others, but none that viewers show."""
    notes: tuple[str, ...] = ()
    """What the user should know of what was not taken over, a line each."""


@dataclass(frozen=True)
class Opening:
    """How a file is opened: its name as the user wrote it, the memory in bytes, what pages without a name are."""

    path: str
    limit: int
    pages: str | None = None


@dataclass(frozen=True)
class Format:
    """A format: its name for users, what tells it by a file's first bytes, and how a file is opened."""

    name: str
    recognises: Callable[[bytes], bool]
    open: Callable[[Path, Opening], AbstractContextManager[Picture]]


def check_whole(opening: Opening, extents: tuple[int, int], taken: int) -> None:
    """Refuse an image that is decoded whole and would take more bytes than the memory."""
    if taken > opening.limit:
        raise InputError(
            f"{opening.path}: decoding its {extents[0]} × {extents[1]} pixels takes about {size(taken)}, more than the "
            f"memory of {size(opening.limit)}; allow more (--memory), or save it as a tiled TIFF"
        )


def names(bands: int, *, colour: bool, alpha: bool = True) -> tuple[str, ...]:
    """Return the names of channels of which the file says no more than whether they are colours."""
    known = COLOURS[: 4 if alpha else 3] if colour else ()
    return tuple(known[n] if n < len(known) else str(n) for n in range(bands))


def reason(error: BaseException) -> str:
    """Return an error's first line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def reading(path: str | Path, part: str = "") -> Iterator[None]:
    """Turn whatever reading a file raises into an `InputError` that names it, and the part if there is one."""
    try:
        yield
    except HaloflowError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged or hostile file makes the decoders raise
        which = f"{part} " if part else ""
        raise InputError(f"{path}: {which}cannot be read, it may be damaged or cut short: {reason(error)}") from None
