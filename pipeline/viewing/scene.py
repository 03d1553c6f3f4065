"""What a viewer shows of a store or an image: one layer a channel, placed in the world, the maps over their image."""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from pipeline.errors import ViewError
from pipeline.inspection import inspect
from pipeline.storage.images import open_image
from pipeline.storage.ome import read_level
from pipeline.storage.place import Place

MAP_COLOURS = ("#ff453a", "#32d7ff", "#ffd60a", "#bf7bff", "#30d158", "#ff9f0a", "#ff6fb1", "#8fb4ff")
"""Of the maps of a layer: far from each other, and seen over grey and over photographs."""

SHOWN = 4
"""So many maps are shown at first; the others are a click away."""

_BASIC = {"red": "#ff0000", "green": "#00ff00", "blue": "#0000ff"}
_TYPES = frozenset({"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"})
_CODECS = (BytesCodec, BloscCodec, GzipCodec, ZstdCodec, Crc32cCodec, TransposeCodec)
_COMPRESSORS = frozenset({"blosc", "gzip", "zlib", "zstd"})

Span = tuple[float, float]


@dataclass(frozen=True)
class Layer:
    """One channel of an image or map.

    Parameters
    ----------
    name
        As the viewer lists it.
    root, inner
        The place that is served, and the path of the image in it ("" for the root itself).
    array
        The array of the finest level.
    zarr_format
        2 or 3.
    channel
        The channel's number; None where there is no axis for channels.
    axes, shape, scale, translation, units
        Of the array, for each axis: its name and extent, a pixel's size, the first one's centre, and in what.
    is_ome
        Whether the place of the pixels is written with them, where a viewer finds it.
    is_plain
        Whether a browser can read the pixels as they are stored: in local files, of a type and in codecs that
        neuroglancer knows.
    is_whole
        Whether the stored numbers are integers.
    window, contrast
        The values that the contrast may be set between, and those it is set to at first.
    colour
        Such as ``#ff0000``.
    is_map
        A map lies over its image; the image's channels add up.
    visible
        Whether it is shown at first.
    """

    name: str
    root: Place
    inner: str
    array: Place
    zarr_format: int
    channel: int | None
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    is_ome: bool
    is_plain: bool
    is_whole: bool
    window: Span
    contrast: Span
    colour: str
    is_map: bool
    visible: bool


@dataclass(frozen=True)
class Scene:
    """The layers from the lowest to the highest, and what the user should know about them."""

    path: str
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()


def scene(path: str) -> Scene:
    """Return what to show of a store that Haloflow made, or of an image; raises `InputError` if it is neither.

    Raises `ViewError` for a store that has tables and no maps.
    """
    found = inspect(path)
    if found["kind"] == "image":
        return Scene(path, tuple(_distinct(_image(Place.of(path), visible=True))))
    layers, notes = list[Layer](), list[str]()
    if not found["maps"]:
        raise ViewError(f"{path}: has no maps to show, only tables; name the layers to keep in output.layers")
    if not found["complete"]:
        notes.append(f"{path}: its run is not complete: what is missing looks like empty space")
    names = list(dict.fromkeys(kept["image"] for kept in found["maps"]))
    for name in names:
        first = name == names[0]
        image = _located(path, found["made_as"], found["inputs"][name])
        if image is None:
            notes.append(f"{found['inputs'][name]}: is not there any more; its maps are shown without it")
        else:
            layers += _image(image, visible=first)
        kept = [m["layer"] for m in found["maps"] if m["image"] == name]
        for layer in kept:
            layers += _maps(Place.of(path), f"{name}/{layer}", visible=first and layer == kept[-1])
    if len(names) > 1:
        notes.append(f"{path}: {len(names)} images; {names[0]} is shown, the others are in the list of layers")
    return Scene(path, tuple(_distinct(layers)), tuple(notes))


def _located(path: str, made_as: str, image: str) -> Place | None:
    """Return where a store's input is now: as the run named it, from where it ran or from here; None if nowhere."""
    if not Place.of(image).is_local:
        return Place.of(image)
    bases = [Path()]
    if (store := Path(path).resolve()).parts[-len(Path(made_as).parts) :] == Path(made_as).parts:
        bases.insert(0, Path(*store.parts[: -len(Path(made_as).parts)]))
    for base in bases:
        if (place := Place.of(str(base / image))).exists():
            return place
    return None


def _image(place: Place, *, visible: bool) -> list[Layer]:
    return [replace(layer, visible=visible) for layer in _layers(place, "")]


def _maps(store: Place, inner: str, *, visible: bool) -> list[Layer]:
    return [
        replace(
            layer,
            colour=MAP_COLOURS[number % len(MAP_COLOURS)],
            contrast=_positive(layer),
            is_map=True,
            visible=visible and number < SHOWN,
        )
        for number, layer in enumerate(_layers(store, inner))
    ]


def _positive(layer: Layer) -> Span:
    """Return a map's contrast from 0 up where it has both signs: over an image, what does not match is clear."""
    node = zarr.open_array(layer.array.store(), mode="r")
    zero = -float(node.attrs.get("add_offset", 0.0)) / float(node.attrs.get("scale_factor", 1.0))  # type: ignore[arg-type]
    low, high = layer.contrast
    return (zero, high) if low < zero < high else (low, high)


def _layers(root: Place, inner: str) -> Iterator[Layer]:
    """Give each channel of the image at a path in a place."""
    place = root / inner if inner else root
    source = open_image(place)
    node = zarr.open(place.store(), mode="r")
    array = zarr.open_array(source.array.store(), mode="r")
    attributes = dict(node.attrs)
    count = len(source.axes)
    scale, translation, units = (1.0,) * count, (0.0,) * count, (None,) * count
    if is_ome := isinstance(node, zarr.Group):
        level = read_level(str(place), attributes, 0)
        scale, translation, units = level.scale, level.translation, level.units  # type: ignore[assignment]
    name = inner or source.name
    labels = source.channels if "c" in source.axes else (None,)
    whole = bool(np.issubdtype(array.dtype, np.integer))
    for number, label in enumerate(labels):
        window, contrast, colour = _look(attributes, number, array, source.axes, many=len(labels) > 1)
        yield Layer(
            name=name if label is None else f"{name}/{label}",
            root=root,
            inner=inner,
            array=source.array,
            zarr_format=array.metadata.zarr_format,
            channel=None if label is None else number,
            axes=source.axes,
            shape=array.shape,
            scale=scale,
            translation=translation,
            units=units,
            is_ome=is_ome,
            is_plain=root.is_local and _is_plain(array),
            is_whole=whole,
            window=window,
            contrast=contrast,
            colour=_BASIC.get(str(label), colour),
            is_map=False,
            visible=True,
        )


def _is_plain(array: zarr.Array[Any]) -> bool:
    """Say whether neuroglancer's own reader of Zarr takes an array."""
    if array.dtype.name not in _TYPES:
        return False
    if array.metadata.zarr_format == 2:
        compressor = array.metadata.compressor
        return not array.metadata.filters and (compressor is None or compressor.codec_id in _COMPRESSORS)
    codecs: tuple[Any, ...] = array.metadata.codecs
    if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
        codecs = (*codecs[0].codecs, *codecs[0].index_codecs)
    return all(isinstance(codec, _CODECS) for codec in codecs)


def _look(
    attributes: dict[str, Any], number: int, array: zarr.Array[Any], axes: tuple[str, ...], *, many: bool
) -> tuple[Span, Span, str]:
    """Return window, contrast and colour of a channel: as OME-Zarr's ``omero`` says, else from the type or pixels."""
    omero = attributes.get("ome", attributes).get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    said = channels[number] if isinstance(channels, list) and number < len(channels) else None
    said = said if isinstance(said, dict) else {}
    hexed = str(said.get("color", "")).removeprefix("#")
    colour = f"#{hexed.lower()}" if many and re.fullmatch("[0-9a-fA-F]{6}", hexed) else "#ffffff"
    window = said.get("window")
    window = window if isinstance(window, dict) else {}
    contrast = _span(window.get("start"), window.get("end"))
    if contrast is None:
        contrast = _seen(array, axes, number)
    whole = _span(window.get("min"), window.get("max")) or contrast
    return (min(whole[0], contrast[0]), max(whole[1], contrast[1])), contrast, colour


def _span(low: Any, high: Any) -> Span | None:
    numbers = all(isinstance(n, int | float) and math.isfinite(n) for n in (low, high))
    return (float(low), float(high)) if numbers and low < high else None


def _seen(array: zarr.Array[Any], axes: tuple[str, ...], channel: int) -> Span:
    """Return the range of values in nine windows of a channel; of bytes, all that there can be."""
    if array.dtype == np.uint8:
        return 0.0, 255.0
    corners = [
        {axis: slice(at * max(0, n - 128) // 2, at * max(0, n - 128) // 2 + 128) for axis, n, at in ends}
        for ends in itertools.product(
            *(
                [(axis, n, at) for at in range(3)]
                for axis, n in zip(axes, array.shape, strict=True)
                if axis in ("y", "x")
            )
        )
    ]
    values = [
        np.asarray(array[tuple(corner.get(axis, channel if axis == "c" else 0) for axis in axes)], np.float64)
        for corner in corners
    ]
    flat = np.concatenate([v.ravel() for v in values])
    flat = flat[np.isfinite(flat)]
    return _span(*(float(v) for v in np.percentile(flat, (0.5, 99.5)))) or (0.0, 1.0) if flat.size else (0.0, 1.0)


def _distinct(layers: list[Layer]) -> Iterator[Layer]:
    """Give layers names of their own: two channels may have one label, and a viewer needs to tell them apart."""
    taken: set[str] = set()
    for layer in layers:
        names = itertools.chain([layer.name], (f"{layer.name} ({n})" for n in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        yield replace(layer, name=name)
