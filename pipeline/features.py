"""Named features: from what the config says to small arrays of (y, x) or (channel, y, x)."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from pipeline.errors import FeatureError
from pipeline.generated import LARGEST, Generated, Spec, copies, draw
from pipeline.layers.base import Positive
from pipeline.pixels import PixelScale, stored_dtype
from pipeline.sections import Part, Place, Selection

MAX_PIXELS = 2**24
"""Values in one feature; a feature is a mini image."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP")
"""What an image file may be; other readers of Pillow are not let near a file."""

_SIGNS = {"#": 1.0, ".": -1.0, "0": 0.0}

Crop = Callable[["CropSpec"], NDArray[np.float64]]
"""Reads a crop of an image as map values (channel, y, x)."""


class Picture(Spec):
    """A picture, where more is said of it: '#' is 1, '.' is -1, '0' is 0."""

    picture: str

    @property
    def around(self) -> float:
        """A picture stands on −1."""
        return _SIGNS["."]


class Rows(Spec):
    """Numbers: rows of (y, x), or a list of such for each channel."""

    rows: list[Any] = Field(min_length=1)

    @property
    def around(self) -> float:
        """Weights beyond a filter's own are 0."""
        return 0.0


class File(Spec):
    """A ``.npy`` file (its numbers as they are) or an image file (black is −1, white is +1)."""

    file: str


class CropSpec(Part):
    """A rectangle of one plane of an image, in its pixels."""

    image: str
    y: Place
    x: Place
    height: Positive
    width: Positive
    t: Place | None = Field(None, description="the time, from 0 (default: the first)")
    z: Place | None = Field(None, description="the plane along z, from 0 (default: the first)")

    @property
    def selection(self) -> Selection:
        """What is selected of the image, the rectangle aside."""
        t, z = (None if n is None else (n, n + 1) for n in (self.t, self.z))
        return Selection(level=self.level, channels=self.channels, t=t, z=z)

    @model_validator(mode="after")
    def _is_small(self) -> "CropSpec":
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"{self.height} × {self.width} pixels are too many for a feature (at most {MAX_PIXELS})")
        return self


class CropOf(Spec):
    """A feature cut from an image."""

    crop: CropSpec


_SPECS: dict[str, type[Spec]] = {
    "picture": Picture,
    "rows": Rows,
    "file": File,
    "crop": CropOf,
    "generate": Generated,
}


def _form(value: Any) -> str | None:
    if isinstance(value, str):
        return "(picture)"
    if isinstance(value, dict):
        return next((key for key in _SPECS if key in value), None)
    return next((key for key, spec in _SPECS.items() if isinstance(value, spec)), None)


FeatureSpec = Annotated[
    Annotated[str, Tag("(picture)"), Field(description="a picture: '#' is 1, '.' is -1, '0' is 0")]
    | Annotated[Picture, Tag("picture")]
    | Annotated[Rows, Tag("rows")]
    | Annotated[File, Tag("file")]
    | Annotated[CropOf, Tag("crop")]
    | Annotated[Generated, Tag("generate")],
    Discriminator(
        _form,
        custom_error_type="feature_form",
        custom_error_message="expected a picture of '#', '.' and '0', or one of the keys rows, file, crop, generate",
    ),
]


def spec_of(value: Any) -> type[BaseModel] | None:
    """Return the model that a feature written as ``value`` is checked by, if its form is known."""
    return _SPECS.get(_form(value) or "")


def family(name: str, spec: FeatureSpec) -> tuple[str, ...]:
    """Return the names that a feature stands for: its own, or those of its members where it is a family.

    >>> family("spot", "#"), family("bank", Generated(generate="sobel"))
    (('spot',), ('bank/0', 'bank/1'))
    """
    if isinstance(spec, str):
        return (name,)
    if spec.members is None and spec.rotate is None and spec.scale is None:
        return (name,)
    count = (spec.members or 1) * (spec.rotate or 1) * len(spec.scale or (1,))
    return tuple(f"{name}/{member}" for member in range(count))


def make_all(name: str, spec: FeatureSpec, crop: Crop) -> dict[str, NDArray[np.float64]]:
    """Return a feature's values by its name, or a family's by the names of its members.

    Raises `FeatureError` naming the feature where it cannot be made or is too large.
    """
    names = family(name, spec)
    if isinstance(spec, Generated):
        _refuse_crowd(name, (spec.size or 1) ** 2, spec.members or 1)
    members = draw(spec) if isinstance(spec, Generated) else [make(name, spec, crop)]
    if isinstance(spec, Generated) and not all(values.any() and np.isfinite(values).all() for values in members):
        one = f"one of {len(members)} members" if len(members) > 1 else "it"
        raise FeatureError(
            f"feature '{name}': as {spec.generate} of size {spec.size} {one} is 0 or no number at every pixel; change "
            "its size, or what else it says of its width"
        )
    if not isinstance(spec, str) and (spec.rotate is not None or spec.scale is not None):
        scales = spec.scale or (1.0,)
        height, width = members[0].shape[-2:]
        longest = max(scales) * math.hypot(height, width)
        if longest > LARGEST:
            raise FeatureError(
                f"feature '{name}': is {height} × {width}; turned and scaled it would take up to {math.ceil(longest)} "
                f"pixels in height and width, at most {LARGEST} are possible"
            )
        _refuse_crowd(name, math.ceil(longest) ** 2 * (members[0].size // (height * width)), len(names))
        members = [copy for values in members for copy in copies(values, spec.rotate or 1, scales, spec.around)]
    return dict(zip(names, members, strict=True))


def _refuse_crowd(name: str, pixels: int, count: int) -> None:
    if pixels * count > MAX_PIXELS:
        raise FeatureError(
            f"feature '{name}': its {count} members of {pixels} values are too many for a family; at most {MAX_PIXELS} "
            "values are possible"
        )


def make(name: str, spec: str | Picture | Rows | File | CropOf, crop: Crop) -> NDArray[np.float64]:
    """Return the values of a feature that no formula makes; raises `FeatureError` naming it where that fails."""
    if isinstance(spec, str):
        values = _picture(name, spec)
    elif isinstance(spec, Picture):
        values = _picture(name, spec.picture)
    elif isinstance(spec, Rows):
        values = _rows(name, spec)
    elif isinstance(spec, File):
        values = _file(name, spec.file)
    else:
        values = crop(spec.crop)
    if values.ndim not in (2, 3) or not values.size:
        raise FeatureError(f"feature '{name}': has the shape {values.shape}; expected (y, x) or (channel, y, x)")
    if values.size > MAX_PIXELS:
        raise FeatureError(f"feature '{name}': has {values.size} values; at most {MAX_PIXELS} are possible")
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise FeatureError(f"feature '{name}': holds NaN or infinity, or a number too large for float32")
    return values


def _picture(name: str, text: str) -> NDArray[np.float64]:
    lines = [line.replace(" ", "").replace("\t", "") for line in text.strip("\n").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise FeatureError(f"feature '{name}': the picture is empty")
    for number, line in enumerate(lines, 1):
        if strange := set(line) - set(_SIGNS):
            file = f"; write 'file: {text}'" if Path(text).suffix[1:].isalpha() else ""
            raise FeatureError(
                f"feature '{name}', row {number}: {min(strange)!r} is no sign of a picture; "
                f"'#' is 1, '.' is -1, '0' is 0{file}"
            )
        if len(line) != len(lines[0]):
            raise FeatureError(
                f"feature '{name}', row {number}: has {len(line)} signs, the first row has {len(lines[0])}"
            )
    return np.array([[_SIGNS[sign] for sign in line] for line in lines])


def _rows(name: str, spec: Rows) -> NDArray[np.float64]:
    def check(value: Any, depth: int) -> None:
        if isinstance(value, list) and depth < 3:
            for item in value:
                check(item, depth + 1)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise FeatureError(f"feature '{name}': rows hold {value!r}; expected rows of numbers")

    check(spec.rows, 0)
    try:
        return np.array(spec.rows, np.float64)
    except ValueError:
        raise FeatureError(f"feature '{name}': its rows are not all of one length") from None
    except OverflowError:
        raise FeatureError(f"feature '{name}': holds a number too large; every value must be a finite number") from None


def _file(name: str, path: str) -> NDArray[np.float64]:
    if path.startswith("~/"):
        path = str(Path(path).expanduser())
    try:
        if not Path(path).is_file():
            raise FeatureError(f"feature '{name}': there is no file {path}")
        return _npy(name, path) if path.endswith(".npy") else _image(name, path)
    except (OSError, EOFError, ValueError, OverflowError, SyntaxError, Image.DecompressionBombError) as error:
        raise FeatureError(f"feature '{name}': {path} cannot be read: {error}") from None


def _npy(name: str, path: str) -> NDArray[np.float64]:
    with Path(path).open("rb") as file:
        np.lib.format.read_magic(file)  # np.load would also take archives and pickles
    with np.errstate(over="ignore"):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.dtype.kind not in "biuf" or values.size > MAX_PIXELS:
        raise FeatureError(
            f"feature '{name}': {path} holds {values.size} values of type {values.dtype}; expected at most "
            f"{MAX_PIXELS} real numbers"
        )
    return np.array(values, np.float64)


def _image(name: str, path: str) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombWarning as error:
            raise FeatureError(f"feature '{name}': {path}: {error}") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise FeatureError(f"feature '{name}': {path} is {image.height} × {image.width}; too large for a feature")
        if image.mode not in ("1", "L", "RGB", "P", "I;16") or "transparency" in image.info:
            raise FeatureError(
                f"feature '{name}': {path} is of mode {image.mode}; expected gray or RGB, without transparency"
            )
        values = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    planes = np.moveaxis(values, -1, 0) if values.ndim == 3 else values
    return PixelScale(stored_dtype(values.dtype)).exact(planes)
