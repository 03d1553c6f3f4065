"""OME-Zarr metadata as it is written, 0.5 and 0.4, through ome-zarr-models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Version = Literal["0.5", "0.4"]
"""OME-Zarr's versions that are written: 0.5 lies in Zarr's format 3, 0.4 in format 2."""

_TYPES = {"t": "time", "c": "channel"}
_PRIMARIES = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
_COLOURS = ("FFFFFF", "FF4040", "40FF40", "4080FF", "FFFF40", "FF40FF", "40FFFF", "FFA040")


@dataclass(frozen=True)
class Window:
    """What a viewer should show of a channel, in stored numbers: ``start`` … ``end`` of ``low`` … ``high``."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, low: float, high: float, start: float | None = None, end: float | None = None) -> "Window":
        """Return a window of some width within finite numbers; by default all of the range is shown.

        Where the range has no finite end, what is shown has.

        >>> Window.of(0, 10, 2, 2), Window.of(3, 3)
        (Window(low=0, high=10, start=0, end=10), Window(low=3, high=4.0, start=3, end=4.0))
        >>> Window.of(0, math.inf, 2, 5)
        Window(low=0, high=5, start=2, end=5)
        """
        least, most = low if math.isfinite(low) else start, high if math.isfinite(high) else end
        if least is None or most is None:
            least, most = 0.0, 1.0
        if not least < most:
            most = least + max(1.0, abs(least) * 1e-6)
        if start is None or end is None or not least <= start < end <= most:
            start, end = least, most
        return cls(least, most, start, end)

    def to_dict(self) -> dict[str, float]:
        """Return the window as it stands in OME-Zarr's metadata."""
        named = {"min": self.low, "max": self.high, "start": self.start, "end": self.end}
        return {name: float(number) for name, number in named.items()}


@dataclass(frozen=True)
class Placed:
    """One resolution level: its array's path, and along each axis the size of a pixel and the first one's centre."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


def describe(
    name: str,
    axes: Sequence[tuple[str, str | None]],
    levels: Sequence[Placed],
    channels: Sequence[str],
    windows: Sequence[Window],
    *,
    version: Version = "0.5",
    shrunk: str | None = None,
) -> dict[str, Any]:
    """Return the attributes of an OME-Zarr image.

    Parameters
    ----------
    name
        Of the image.
    axes
        Name and unit of each axis of the arrays.
    levels
        The finest first.
    channels, windows
        The channels' names, and what to show of each.
    version
        In 0.5 all lies under ``ome``, in 0.4 at the top.
    shrunk
        How each further level is made from the one before.
    """
    # Here, as the models take long to load, and workers write no metadata.
    from ome_zarr_models.v04.image import ImageAttrs as ImageAttrsV04  # noqa: PLC0415
    from ome_zarr_models.v04.omero import Channel, Omero  # noqa: PLC0415
    from ome_zarr_models.v04.omero import Window as OmeroWindow  # noqa: PLC0415
    from ome_zarr_models.v05.axes import Axis  # noqa: PLC0415
    from ome_zarr_models.v05.image import ImageAttrs as ImageAttrsV05  # noqa: PLC0415
    from ome_zarr_models.v05.multiscales import Dataset, Multiscale  # noqa: PLC0415

    multiscale = Multiscale(
        axes=[Axis(name=axis, type=_TYPES.get(axis, "space"), unit=unit) for axis, unit in axes],
        datasets=tuple(Dataset.build(path=p.path, scale=p.scale, translation=p.translation) for p in levels),
        name=name,
        type=shrunk,
    )
    # Of an image in colours more channels, such as alpha, would hide these.
    coloured = tuple(channels[:3]) == tuple(_PRIMARIES)
    colours, shown = ((*_PRIMARIES.values(), "FFFFFF"), 3) if coloured else (_COLOURS, len(_COLOURS))
    omero = Omero(
        channels=[
            Channel(
                label=label,
                color=colours[place % len(colours)] if len(channels) > 1 else _COLOURS[0],
                active=place < shown,
                window=OmeroWindow(min=w.low, max=w.high, start=w.start, end=w.end),
            )
            for place, (label, w) in enumerate(zip(channels, windows, strict=True))
        ]
    )
    if version == "0.4":
        older = multiscale.to_version("0.4").model_copy(update={"version": version})
        image = ImageAttrsV04(multiscales=[older], omero=omero)
        return image.model_dump(mode="json", exclude_none=True)
    newer = ImageAttrsV05(multiscales=[multiscale], version=version, omero=omero)
    return {"ome": newer.model_dump(mode="json", exclude_none=True)}
