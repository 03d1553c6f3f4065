"""Features made by a formula, and families: one feature turned and scaled.

Angles are in degrees, counter-clockwise as one sees the picture: 0 is a line, or a change, along x.
Drawings are +1 on −1, smooth over one pixel at their rims.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, Self

import numpy as np
import scipy  # its parts load on use
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.layers.base import Finite, as_tuple

Values = NDArray[np.float64]

LARGEST = 1024
"""The height and width of a generated feature, and of a turned or scaled one, at the most."""

MOST = 256
"""The members of a family at the most."""

_ROUNDING = 1e-9
"""What a gabor's values reach at the least; below it they are what rounding leaves of 0."""

Size = Annotated[int, Field(ge=1, le=LARGEST)]
Width = Annotated[Finite, Field(ge=1 / LARGEST, le=LARGEST)]
Times = Annotated[int, Field(ge=1, le=360)]


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else as_tuple(value)


class Spec(BaseModel):
    """What every feature may say: that it stands for a family."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rotate: Times | None = Field(None, description="how many turned copies, over the whole circle")
    scale: (
        Annotated[
            tuple[Annotated[Finite, Field(ge=1 / LARGEST, le=64)], ...],
            Field(min_length=1, max_length=64),
            BeforeValidator(_as_list, json_schema_input_type=float | list[float]),
        ]
        | None
    ) = Field(None, description="the sizes of copies, 1 the feature's own, one or a list")

    @property
    def around(self) -> float | None:
        """What stands around turned and scaled copies; None for what most of the feature's border is."""
        return None

    @property
    def members(self) -> int | None:
        """How many features a formula gives as a family; None where there is one that is none."""
        return None

    @model_validator(mode="after")
    def _is_no_crowd(self) -> Self:
        count = (self.members or 1) * (self.rotate or 1) * len(self.scale or (1,))
        if count > MOST:
            raise ValueError(f"makes {count} features; at most {MOST} are possible")
        return self


class Generated(Spec):
    """A feature made by a formula; the oriented ones are families."""

    generate: Literal[
        "gaussian", "dog", "laplacian", "sobel", "prewitt", "gabor", "disk", "ring", "line", "corner", "cross"
    ]
    size: Size | None = Field(None, description="height and width in pixels")
    sigma: Width | None = Field(None, description="the width of the Gaussian (default: a sixth of the size)")
    ratio: Annotated[Finite, Field(gt=1, le=100)] | None = Field(
        None, description="dog: the wide Gaussian's sigma over the narrow one's (default: 1.6)"
    )
    orientations: Times | None = Field(None, description="the members of the family, turned step by step")
    wavelength: Width | None = Field(None, description="gabor: pixels from crest to crest (default: half the size)")
    phase: Finite | None = Field(
        None, description="gabor: degrees; 0 for a crest in the middle (default), 90 for a rise"
    )
    radius: Width | None = Field(None, description="disk, ring: to the rim (default: a third of the size)")
    thickness: Width | None = Field(None, description="ring, line, corner, cross: of the stroke (default: a sixth)")

    @model_validator(mode="after")
    def _takes_what_it_says(self) -> Self:
        takes = _KINDS[self.generate].takes
        for key in type(self).model_fields:
            if key in self.model_fields_set - {"generate", *takes, *Spec.model_fields}:
                raise ValueError(f"{key} has no effect on {self.generate}; it takes {', '.join(takes)}")
        if "size" in takes and self.size is None:
            raise ValueError(f"{self.generate} needs a size, its height and width in pixels")
        return self

    @property
    def around(self) -> float:
        """What stands around the feature: −1 around a drawing, 0 around a filter."""
        return -1.0 if _KINDS[self.generate].is_drawing else 0.0

    @property
    def members(self) -> int | None:
        """How many features the formula gives as a family; None where it gives one that is none."""
        kind = _KINDS[self.generate]
        return (self.orientations or kind.orientations) if kind.orientations else None


@dataclass(frozen=True)
class _Frame:
    """Where a feature's pixels lie from its centre, turned by the member's angle, and the sizes it is drawn with."""

    u: Values
    v: Values
    angle: float
    sigma: float
    radius: float
    thickness: float
    spec: Generated

    @property
    def away(self) -> Values:
        """The distance from the centre."""
        away: Values = np.hypot(self.u, self.v)
        return away


def _direction(angle: float) -> tuple[float, float]:
    """Return cosine and sine; of whole quarters they are whole numbers, so that turns by these are exact."""
    return round(float(np.cos(angle)), 15) + 0.0, round(float(np.sin(angle)), 15) + 0.0


def _frame(spec: Generated, angle: float) -> _Frame:
    size = spec.size or 1
    at = np.arange(size) - (size - 1) / 2
    x, y = at[None, :], -at[:, None]
    cosine, sine = _direction(angle)
    u, v = x * cosine + y * sine, y * cosine - x * sine
    thickness = spec.thickness or max(1.0, size / 6)
    return _Frame(u, v, angle, spec.sigma or size / 6, spec.radius or size / 3, thickness, spec)


def _bell(away: Values, sigma: float) -> Values:
    bell = np.exp(-(away**2) / (2 * sigma**2))
    shares: Values = bell / bell.sum()
    return shares


def _drawn(beyond: Values) -> Values:
    """Return +1 inside of a rim and −1 outside, from the distance beyond it; a pixel on the rim is 0."""
    values: Values = 1 - 2 * np.clip(beyond + 0.5, 0, 1)
    return values


def _dog(frame: _Frame) -> Values:
    return _bell(frame.away, frame.sigma) - _bell(frame.away, frame.sigma * (frame.spec.ratio or 1.6))


def _laplacian(frame: _Frame) -> Values:
    values: Values = (frame.away**2 - 2 * frame.sigma**2) / frame.sigma**4 * _bell(frame.away, frame.sigma)
    values -= values.mean()
    return values


def _gradient(smooth: Sequence[float], frame: _Frame) -> Values:
    across = np.outer(smooth, [-1.0, 0.0, 1.0])
    cosine, sine = _direction(frame.angle)
    values: Values = cosine * across - sine * across.T
    return values


def _gabor(frame: _Frame) -> Values:
    length = frame.spec.wavelength or len(frame.u) / 2
    bell = _bell(frame.away, frame.sigma)
    values: Values = bell * np.cos(2 * np.pi * frame.u / length - np.deg2rad(frame.spec.phase or 0.0))
    values -= bell * values.sum()  # no answer to what is flat
    greatest = np.abs(values).max()
    # Where every pixel lies in the middle between two stripes, what is left is rounding.
    return values / greatest if greatest > _ROUNDING else np.zeros_like(values)


def _arm(along: Values, beside: Values) -> Values:
    """Return the distance from a half-line."""
    return np.where(along >= 0, np.abs(beside), np.hypot(along, beside))


def _corner(frame: _Frame) -> Values:
    return _drawn(np.minimum(_arm(frame.u, frame.v), _arm(frame.v, frame.u)) - frame.thickness / 2)


def _cross(frame: _Frame) -> Values:
    return _drawn(np.minimum(np.abs(frame.u), np.abs(frame.v)) - frame.thickness / 2)


@dataclass(frozen=True)
class _Kind:
    """The keys a formula takes, the formula, and for oriented ones how many turns by default, over so many degrees."""

    takes: tuple[str, ...]
    draw: Callable[[_Frame], Values]
    orientations: int = 0
    degrees: int = 180
    is_drawing: bool = False


_KINDS = {
    "gaussian": _Kind(("size", "sigma"), lambda f: _bell(f.away, f.sigma)),
    "dog": _Kind(("size", "sigma", "ratio"), _dog),
    "laplacian": _Kind(("size", "sigma"), _laplacian),
    "sobel": _Kind(("orientations",), partial(_gradient, (1.0, 2.0, 1.0)), 2),
    "prewitt": _Kind(("orientations",), partial(_gradient, (1.0, 1.0, 1.0)), 2),
    "gabor": _Kind(("size", "sigma", "wavelength", "phase", "orientations"), _gabor, 4),
    "disk": _Kind(("size", "radius"), lambda f: _drawn(f.away - f.radius), is_drawing=True),
    "ring": _Kind(
        ("size", "radius", "thickness"), lambda f: _drawn(np.abs(f.away - f.radius) - f.thickness / 2), is_drawing=True
    ),
    "line": _Kind(
        ("size", "thickness", "orientations"), lambda f: _drawn(np.abs(f.v) - f.thickness / 2), 4, is_drawing=True
    ),
    "corner": _Kind(("size", "thickness", "orientations"), _corner, 4, 360, is_drawing=True),
    "cross": _Kind(("size", "thickness", "orientations"), _cross, 2, 90, is_drawing=True),
}


def draw(spec: Generated) -> list[Values]:
    """Return the features (y, x) of a formula: one, or the family's members by their angle."""
    kind, count = _KINDS[spec.generate], spec.members or 1
    with np.errstate(invalid="ignore"):  # a Gaussian too narrow for its pixels is 0 / 0, which is refused
        return [kind.draw(_frame(spec, np.deg2rad(kind.degrees * n / count))) for n in range(count)]


def copies(values: Values, rotate: int, scales: Sequence[float], around: float | None) -> list[Values]:
    """Return a feature turned and scaled, every copy on a canvas that holds all of them: scale by scale, by the angle.

    Parameters
    ----------
    values
        (y, x) or (channel, y, x).
    rotate
        How many turns, in equal steps over the whole circle, from 0 on.
    scales
        Sizes, 1 the feature's own.
    around
        What stands around a copy; None for the median of the feature's border, channel by channel.

    Returns
    -------
    Copies of one height and width, interpolated linearly; smaller ones are smoothed first. Turns by whole quarters are
    exact, unless one side of the feature is odd and the other even: all copies have their centre at one place, so that
    a turned one lies between pixels.
    """
    planes = values if values.ndim == 3 else values[None]
    height, width = planes.shape[1:]
    angles = np.deg2rad(360 * np.arange(rotate) / rotate)
    turns = [(scale, *_direction(angle)) for scale in scales for angle in angles]
    tall = max(scale * (abs(c) * height + abs(s) * width) for scale, c, s in turns)
    wide = max(scale * (abs(s) * height + abs(c) * width) for scale, c, s in turns)
    canvas = (_like(tall, height), _like(wide, width))
    made = [np.stack([_copy(plane, *turn, canvas, around) for plane in planes]) for turn in turns]
    return [copy if values.ndim == 3 else copy[0] for copy in made]


def _like(extent: float, original: int) -> int:
    """Return the whole extent that holds ``extent``, odd or even like the original, so that the centres coincide."""
    whole = int(np.ceil(extent - 1e-6))
    return whole + (whole - original) % 2


def _copy(
    plane: Values, scale: float, cosine: float, sine: float, canvas: tuple[int, int], around: float | None
) -> Values:
    if around is None:
        around = float(np.median(np.concatenate([plane[0], plane[-1], plane[1:-1, 0], plane[1:-1, -1]])))
    if scale < 1:
        plane = scipy.ndimage.gaussian_filter(plane, (1 / scale - 1) / 2, mode="constant", cval=around)
    matrix = np.array([[cosine, sine], [-sine, cosine]]) / scale  # from a place on the canvas to one of the feature
    middle = (np.array(plane.shape) - 1) / 2
    offset = middle - matrix @ ((np.array(canvas) - 1) / 2)
    made: Values = scipy.ndimage.affine_transform(
        plane, matrix, offset, output_shape=canvas, order=1, mode="grid-constant", cval=around
    )
    return made
