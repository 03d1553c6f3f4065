"""What every layer is: frozen parameters as the user writes them, and how they bind to an operation."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from pipeline.errors import StackError
from pipeline.geometry import Window
from pipeline.operation import Operation


def as_tuple(value: Any) -> Any:
    """Let a YAML list stand where a tuple is kept."""
    return tuple(value) if isinstance(value, list) else value


def _as_pair(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"expected a whole number, or a pair of them for y and x; found {value!r}")
    return tuple(value)


def _as_names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


def _one_or_many(value: Any) -> str:
    return "(list)" if isinstance(value, list | tuple) else "(number)"


Positive = Annotated[int, Field(ge=1, le=2**31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_FLOAT32 = np.finfo(np.float32)
EPSILON, GREATEST, LEAST = float(_FLOAT32.eps), float(_FLOAT32.max), float(_FLOAT32.smallest_subnormal)
"""Of float32: what rounding moves 1 by, at the most, the greatest number, and the least above 0."""


def _in_float32(value: float) -> float:
    if abs(value) > GREATEST:
        raise ValueError(f"{value:g} is too large for float32, in which maps are made; at most ±{GREATEST:.4g}")
    return value


Number = Annotated[Finite, AfterValidator(_in_float32)]
"""What maps are made with, in float32: a greater one would be infinite there."""
Pair = Annotated[
    tuple[Positive, Positive],
    BeforeValidator(_as_pair, json_schema_input_type=Positive | tuple[Positive, Positive]),
]
"""One number for both axes, or (y, x)."""
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_names, json_schema_input_type=str | Annotated[tuple[str, ...], Field(min_length=1)]),
]
"""One name or a list of names."""
NoneOrNames = Annotated[tuple[str, ...], BeforeValidator(_as_names, json_schema_input_type=str | tuple[str, ...])]
"""The same, and the list may be empty."""
Numbers = Annotated[
    Annotated[Number, Tag("(number)")] | Annotated[tuple[Number, ...], BeforeValidator(as_tuple), Tag("(list)")],
    Discriminator(_one_or_many),
]
"""One number for all maps, or one each."""


LARGEST_SPAN = 4096
"""Pixels from a window's first tap to its last; a block of work holds at least this much of each map."""


def refuse_wide(name: str, subject: str, y: Window, x: Window) -> None:
    """Raise `StackError` where a window spans more than a block of work should hold."""
    if max(y.span, x.span) > LARGEST_SPAN:
        raise StackError(
            f"layer '{name}': {subject} spans {y.span} × {x.span} pixels; at most {LARGEST_SPAN} are possible"
        )


Limits = tuple[float, float]
"""The least and the greatest value there can be, NaN aside: numbers of float32, infinite where there is no limit."""
ANY: Limits = (-math.inf, math.inf)


def between(*values: float) -> Limits:
    """Return the limits of what lies between some values, rounded as these are."""
    with np.errstate(over="ignore"):
        ends = np.asarray(values).astype(np.float32)
    return float(ends.min()), float(ends.max())


def added(terms: Sequence[Limits]) -> Limits:
    """Return the limits of sums of a value of each term: rounding keeps an order, and moves an end by so much."""
    ends = []
    for values, sign in zip(zip(*terms, strict=True), (-1, 1), strict=True):
        size = sum(map(abs, values))
        moved = sum(values) + sign * (len(values) + 1) * EPSILON * size
        ends.append(moved if size < GREATEST else sign * math.inf)
    return between(*ends)


def times(factor: float, given: Limits) -> Limits:
    """Return the limits of products with a factor, taken as float32; what is infinite times 0 is NaN."""
    factor = between(factor)[0]
    return between(*(factor * end for end in given)) if factor else (0.0, 0.0)


class Layer(BaseModel, ABC):
    """A step of the stack as the config names it. A new layer is one new file in this folder with a subclass.

    The subclass gives ``type`` a literal of one string, adds its parameters as fields, and makes an `Operation`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)] | None = None

    @property
    def uses(self) -> tuple[str, ...]:
        """The names of the features this layer needs."""
        return ()

    @property
    def joins_all(self) -> bool:
        """Whether the layer makes one pixel of each whole map."""
        return False

    def naming(self, families: Mapping[str, tuple[str, ...]]) -> "Layer":
        """Return the layer with each family it names replaced by its members; raises `ValueError` for a wrong count."""
        del families
        return self

    def limits(self, given: Limits) -> Limits:
        """Return between which two values all lie that the layer gives, where those it gets lie between ``given``.

        NaN is left aside. A layer of which nothing is known keeps this method.
        """
        del given
        return ANY

    @abstractmethod
    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation for an input of the named maps; raises `StackError` where the two do not fit."""
