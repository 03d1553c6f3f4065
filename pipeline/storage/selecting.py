"""What the config selects of an image: channels, ranges of t and z, and a region of each plane."""

import math
from dataclasses import replace

from pipeline.errors import InputError, nearest
from pipeline.geometry import Interval
from pipeline.sections import Bounds, Selection
from pipeline.storage.source import Outer, Source

NEAR = 1e-6
"""Of a pixel: how near a bound in physical units counts as on a pixel's centre, for 0.3 is no multiple of 0.1."""


def select(source: Source, selection: Selection, key: str) -> Source:
    """Return what is selected of a whole image; raises `InputError` naming the key that selects what is not there.

    ``key`` is where in the config the selection stands.
    """
    source = replace(source, picks=_picks(source, selection.channels, key))
    source = replace(
        source,
        channels=tuple(source.channels[pick] for pick in source.picks),
        outer=tuple(_range(source, axis, getattr(selection, axis.name), key) for axis in source.outer),
    )
    for name in "tz":
        if getattr(selection, name) is not None and name not in source.axes:
            raise InputError(f"{source.path}: {key}.{name}: the image has no axis {name}")
    if selection.region is None:
        return source
    unit = selection.region.unit
    y, x = (_interval(source, n, b, unit, key) for n, b in enumerate((selection.region.y, selection.region.x)))
    (top, left), (tall, wide) = source.translation, source.scale
    return replace(
        source,
        extents=(len(y), len(x)),
        offset=(y.start, x.start),
        translation=(top + tall * y.start, left + wide * x.start),
    )


def _picks(source: Source, channels: tuple[str | int, ...] | None, key: str) -> tuple[int, ...]:
    if channels is None:
        return source.picks
    picks: list[int] = []
    for channel in channels:
        if isinstance(channel, int):
            if channel >= len(source.channels):
                raise InputError(
                    f"{source.path}: {key}.channels: there is no channel {channel}; the image has "
                    f"{len(source.channels)}, counted from 0"
                )
            pick = channel
        elif channel in source.channels:
            pick = source.channels.index(channel)
        else:
            raise InputError(
                f"{source.path}: {key}.channels: there is no channel '{channel}'; {nearest(channel, source.channels)}"
            )
        if pick in picks:
            raise InputError(f"{source.path}: {key}.channels: channel {channel!r} stands twice")
        picks.append(pick)
    return tuple(picks)


def _range(source: Source, axis: Outer, wanted: tuple[int, int] | None, key: str) -> Outer:
    if wanted is None:
        return axis
    start, stop = wanted
    if stop > axis.extent:
        raise InputError(
            f"{source.path}: {key}.{axis.name}: goes to {stop - 1}; the image has {axis.extent}, counted from 0"
        )
    return replace(axis, extent=stop - start, first=start, translation=axis.translation + axis.scale * start)


def _interval(source: Source, axis: int, bounds: Bounds | None, unit: str, key: str) -> Interval:
    """Return the pixels along an axis that bounds select: those whose centre lies in [start, stop)."""
    extent, name = source.extents[axis], "yx"[axis]
    if bounds is None:
        return Interval(0, extent)
    if unit == "pixel":
        start, stop = (math.ceil(b) for b in bounds)
    else:
        scale, translation = source.scale[axis], source.translation[axis]
        if scale <= 0:
            raise InputError(f"{source.path}: {key}.region.{name}: a pixel's size is {scale:g} there; give pixels")
        places = [(b - translation) / scale - NEAR for b in bounds]
        if not all(map(math.isfinite, places)):
            raise InputError(f"{source.path}: {key}.region.{name}: a pixel's size is {scale:g} there; give pixels")
        start, stop = map(math.ceil, places)
    if start < 0 or stop > extent or start >= stop:
        raise InputError(
            f"{source.path}: {key}.region.{name}: {bounds[0]:g} to {bounds[1]:g} {_beyond(source, axis, unit)}"
        )
    return Interval(start, stop)


def _beyond(source: Source, axis: int, unit: str) -> str:
    if unit == "pixel":
        return f"is not within the image, which has {source.extents[axis]} pixels"
    scale, first = source.scale[axis], source.translation[axis]
    last = first + scale * (source.extents[axis] - 1)
    unit = source.units[axis] or "units"
    return f"{unit} holds no pixel or goes beyond the image, whose pixels' centres lie at {first:g} to {last:g}"
