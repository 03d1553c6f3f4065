"""Vote: a score for each of some named classes, from all maps of a pixel."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.errors import StackError, listed
from pipeline.layers.base import Layer, Limits, Number, added, as_tuple, between, times
from pipeline.layers.convolution import convolve, doubt_of_sums
from pipeline.operation import POINT, Operation

VOTES = ("weights", "bias")
"""What a file of votes holds."""

Row = Annotated[tuple[Number, ...], BeforeValidator(as_tuple)]
_NAME = re.compile(r"[^\s,/\x00-\x1f\x7f][^,/\x00-\x1f\x7f]*")
LONGEST = 100
"""Letters in the name of a class, at the most."""


def as_class(name: Any) -> Any:
    """Return the name of a class as it is; raises `ValueError` where none can have it."""
    if isinstance(name, str) and not (len(name) <= LONGEST and _NAME.fullmatch(name)):
        raise ValueError(
            f"{name[:LONGEST]!r} cannot be the name of a class: it has no comma, slash or line break, and at most "
            f"{LONGEST} letters"
        )
    return name


Class = Annotated[str, Field(pattern=f"^{_NAME.pattern}$", max_length=LONGEST), BeforeValidator(as_class)]


def _form(value: Any) -> str:
    return "(names)" if isinstance(value, dict) else "(list)"


Given = Annotated[Annotated[dict[str, Number], Tag("(names)")] | Annotated[Row, Tag("(list)")], Discriminator(_form)]
"""A number for each map, by the map's name or in their order."""


class Vote(Layer):
    """For every pixel and class the sum of weight · map over all maps, and the class's bias: a linear classifier.

    The maps it gives are the classes' scores, and the class of the greatest is what is decided; a `softmax` after it
    makes shares of them. ``weights`` has for each class a number for each map, by the map's name or in their order, and
    ``bias`` a number for each class, or is left out. A ``file`` of these two keys, such as ``haloflow fit`` writes,
    stands for them.
    """

    type: Literal["vote"]
    weights: dict[Class, Given] | None = Field(
        None, description="by class a weight for each map, by its name or in their order"
    )
    bias: dict[Class, Number] = Field(default_factory=dict, description="by class (default: 0)")
    file: str | None = Field(None, description="a YAML file with weights and bias, in place of these")

    @model_validator(mode="after")
    def _has_classes(self) -> Self:
        if self.weights is None:
            raise ValueError("vote needs weights, or a file of them as 'haloflow fit' writes it")
        classes = list(self.weights)
        if len(classes) < 2:
            raise ValueError(f"vote has the classes {', '.join(classes) or 'none'}; it decides between two or more")
        if self.bias and set(self.bias) != set(classes):
            raise ValueError(
                f"bias has numbers for {', '.join(self.bias)}, and weights for {', '.join(classes)}; "
                "give both for the same classes"
            )
        return self

    def limits(self, given: Limits) -> Limits:
        """Return those of all classes."""
        found: list[float] = []
        for label, row in (self.weights or {}).items():
            bias = self.bias.get(label, 0.0)
            numbers = row.values() if isinstance(row, Mapping) else row
            found += added([*(times(weight, given) for weight in numbers), (bias, bias)])
        return between(*found)

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation; raises `StackError` where a class has weights for other maps."""
        del features
        weights = self.weights or {}
        table = np.array([_row(name, label, given, maps) for label, given in weights.items()], float)
        bias = np.array([self.bias.get(label, 0.0) for label in weights])
        return Operation(
            kind="convolution",  # of features of one pixel, for which there are kernels
            name=name,
            windows=POINT,
            inputs=len(maps),
            maps=tuple(weights),
            block=convolve,
            doubt=doubt_of_sums,
            arrays={"weights": table[:, :, None, None], "bias": bias},
            options={"divisor": 1},
            work=table.size,
        )


def _row(layer: str, label: str, given: Mapping[str, float] | tuple[float, ...], maps: tuple[str, ...]) -> list[float]:
    """Return a class's weights in the order of the maps."""
    if not isinstance(given, Mapping):
        if len(given) != len(maps):
            raise StackError(
                f"layer '{layer}': class '{label}' has {len(given)} weights and the layer takes {len(maps)} maps: "
                f"{listed(maps)}"
            )
        return list(given)
    lacking = [m for m in maps if m not in given]
    unknown = [m for m in given if m not in maps]
    if lacking or unknown:
        told = f"no weight for the maps {listed(lacking)}" if lacking else ""
        told += (" and " if lacking and unknown else "") + (f"weights for {listed(unknown)}" if unknown else "")
        raise StackError(f"layer '{layer}': class '{label}' has {told}; the layer takes {listed(maps)}")
    return [given[m] for m in maps]
