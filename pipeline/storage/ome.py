"""OME-Zarr metadata as it is read, 0.5 and 0.4, through ome-zarr-models."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from unicodedata import category

from pydantic import ValidationError

from pipeline.errors import InputError


@dataclass(frozen=True)
class Level:
    """One resolution level: where its array is, its axes' names, and per axis scale, translation and unit."""

    path: str
    axes: tuple[str, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    channels: tuple[str, ...] | None


def is_image(attributes: dict[str, Any]) -> bool:
    """Say whether a group's attributes describe an OME-Zarr image."""
    return "multiscales" in _ome(attributes)


def is_plate(attributes: dict[str, Any]) -> bool:
    """Say whether a group's attributes describe a plate, whose wells hold images."""
    return "plate" in _ome(attributes)


def _ome(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return what attributes say as OME-Zarr: of 0.5 under ``ome``, of 0.4 at the top."""
    ome = attributes.get("ome")
    return attributes if ome is None else ome if isinstance(ome, dict) else {}


def read_level(path: str, attributes: dict[str, Any], level: int, key: str = "level") -> Level:
    """Return the level of an image that ``key`` chose; `InputError` where there is none or metadata is not valid."""
    # Here, as the models take long to load, and a worker knows from the plan where the level is.
    from ome_zarr_models.v04.image import ImageAttrs as ImageAttrsV04  # noqa: PLC0415
    from ome_zarr_models.v05.image import ImageAttrs as ImageAttrsV05  # noqa: PLC0415

    try:
        parsed = (
            ImageAttrsV05.model_validate(attributes["ome"])
            if "ome" in attributes
            else ImageAttrsV04.model_validate(attributes)
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: its OME-Zarr metadata is not valid: {place}: {first['msg']}") from None
    multiscale = parsed.multiscales[0]
    if level >= len(multiscale.datasets):
        have = f"levels 0 to {len(multiscale.datasets) - 1}" if len(multiscale.datasets) > 1 else "level 0 only"
        raise InputError(f"{path}: {key}: there is no level {level}; the image has {have}")
    dataset = multiscale.datasets[level]
    inner = PurePosixPath(dataset.path)
    if (
        inner.is_absolute()
        or ".." in inner.parts
        or "::" in dataset.path
        or "://" in dataset.path
        or not dataset.path.isprintable()
    ):
        raise InputError(f"{path}: its metadata points outside the image: {dataset.path!r}")
    axes = tuple(_name(axis) for axis in multiscale.axes)
    if not {"y", "x"} <= set(axes):
        raise InputError(f"{path}: has the axes {', '.join(axes)}; expected y and x, and c for channels")
    scale, translation = _placed(path, axes, dataset, multiscale)
    units = tuple(_plain(axis.unit) if isinstance(axis.unit, str) else None for axis in multiscale.axes)
    return Level(dataset.path, axes, tuple(scale), tuple(translation), units, _labels(attributes))


def _placed(path: str, axes: tuple[str, ...], dataset: Any, multiscale: Any) -> tuple[list[float], list[float]]:
    """Return scale and translation of a level, its own and the whole image's transformations applied."""
    scale, translation = [1.0] * len(axes), [0.0] * len(axes)
    for step in (*dataset.coordinateTransformations, *(multiscale.coordinateTransformations or ())):
        factors, shift = getattr(step, "scale", [1.0] * len(axes)), getattr(step, "translation", [0.0] * len(axes))
        if any(isinstance(numbers, str) or len(numbers) != len(axes) for numbers in (factors, shift)):
            raise InputError(f"{path}: its metadata has a transformation that is not {len(axes)} numbers: {step}")
        scale = [s * f for s, f in zip(scale, factors, strict=True)]
        translation = [t * f + d for t, f, d in zip(translation, factors, shift, strict=True)]
    for axis, size, place in zip(axes, scale, translation, strict=True):
        if axis != "c" and not (math.isfinite(size) and size and math.isfinite(place)):
            raise InputError(
                f"{path}: its OME-Zarr metadata is not valid: coordinateTransformations of {dataset.path}: "
                f"along {axis} a pixel has the size {size:g}, and the first lies at {place:g}; expected finite "
                "numbers, the size not 0"
            )
    return scale, translation


def _name(axis: Any) -> str:
    """Return t or c for an axis of their types, whatever it is called there, and an axis's name otherwise."""
    return {"time": "t", "channel": "c"}.get(axis.type, _plain(str(axis.name)))


def _labels(attributes: dict[str, Any]) -> tuple[str, ...] | None:
    omero = attributes.get("ome", attributes).get("omero", {})
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return None
    labels = [c.get("label") if isinstance(c, dict) else None for c in channels]
    return distinct([_plain(str(label)) for label in labels]) if labels and all(labels) else None


def distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Return channels' labels as names: to those that are equal their numbers from 0 are added.

    >>> distinct(["DAPI", "GFP", "DAPI"])
    ('DAPI_0', 'GFP', 'DAPI_2')
    """
    taken, names = Counter(labels), []
    for number, label in enumerate(labels):
        name = label
        while taken[label] > 1 and name in taken:
            name = f"{name}_{number}"
        taken[name] += not taken[name]
        names.append(name)
    return tuple(names)


def _plain(text: str) -> str:
    """Return a text with a sign in place of each that cannot be printed: a terminal obeys some, and XML has none.

    Spaces of other widths than the common one stay.
    """
    shown = (letter.isprintable() or category(letter) == "Zs" for letter in text)
    return "".join(letter if show else "\N{REPLACEMENT CHARACTER}" for letter, show in zip(text, shown, strict=True))
