"""Convolution: each feature laid over every place of the maps, giving a map of how well it matches there."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.errors import StackError, counted
from pipeline.geometry import Boundary, Window
from pipeline.layers.base import ANY, Layer, Limits, Names, Number, Numbers, Pair, between, refuse_wide
from pipeline.operation import Block, Operation, rounded
from pipeline.patches import FLAT, NOTHING, deviation, flat_below, moments, score


class Convolution(Layer):
    """Cross-correlation with named features (nothing is flipped), as CNN libraries do it.

    ``match: mean`` gives the mean of the products of feature and patch (1 = the same, −1 = the negative, on images of
    ±1), channels counted; ``match: sum`` their sum; ``match: ncc`` their zero-mean normalised cross-correlation,
    channels together: from −1 to 1 whatever the patch's brightness and contrast, and 0 where the patch is flat. What
    padding puts beyond the edge counts like pixels.
    """

    type: Literal["convolution"]
    features: Names = Field(min_length=1, description="the features to match, all of one height and width")
    match: Literal["mean", "sum", "ncc"] = "mean"
    padding: Literal["valid", "same"] = "valid"
    boundary: Literal["constant", "reflect", "nearest"] = "constant"
    fill: Number = 0.0
    channels: Literal["all", "each"] = "all"
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    bias: Numbers = 0.0

    @model_validator(mode="after")
    def _say_what_has_no_effect(self) -> Self:
        if self.padding == "valid" and {"boundary", "fill"} & self.model_fields_set:
            raise ValueError("boundary and fill have no effect without 'padding: same'")
        if self.boundary != "constant" and "fill" in self.model_fields_set:
            raise ValueError("fill has no effect unless boundary is 'constant'")
        return self

    @property
    def uses(self) -> tuple[str, ...]:
        """The features' names."""
        return self.features

    def limits(self, given: Limits) -> Limits:
        """Return those of ``match: ncc``, moved by the biases; of sums nothing is known without the features."""
        del given
        bias = np.asarray(self.bias)
        return between(bias.min() - 1, bias.max() + 1) if self.match == "ncc" else ANY

    def naming(self, families: Mapping[str, tuple[str, ...]]) -> Layer:
        """Return the layer with all members of each family; raises `ValueError` where it has fewer or more biases."""
        members = tuple(member for name in self.features for member in families.get(name, (name,)))
        if isinstance(self.bias, tuple) and len(self.bias) != len(members):
            raise ValueError(f"bias has {counted(len(self.bias), 'number')} for {counted(len(members), 'feature')}")
        return self.model_copy(update={"features": members})

    def bind(self, name: str, maps: tuple[str, ...], features: Mapping[str, NDArray[np.float64]]) -> Operation:
        """Return the operation; its weights are (feature, channel, y, x)."""
        depth = 1 if self.channels == "each" else len(maps)
        kernels = [self._kernel(name, f, features[f], depth) for f in self.features]
        height, width = kernels[0].shape[1:]
        for other, kernel in zip(self.features, kernels, strict=True):
            if kernel.shape[1:] != (height, width):
                raise StackError(
                    f"layer '{name}': feature '{self.features[0]}' is {height} × {width} and feature '{other}' is "
                    f"{kernel.shape[1]} × {kernel.shape[2]}; the features of one layer have one size: put them into "
                    "layers of their own"
                )
        make = Window.same if self.padding == "same" else Window
        y, x = (
            make(size, stride, dilation)
            for size, stride, dilation in zip((height, width), self.stride, self.dilation, strict=True)
        )
        refuse_wide(name, f"feature '{self.features[0]}'", y, x)
        repeats = len(maps) // depth
        named = self.features if depth == len(maps) else tuple(f"{m}.{f}" for m in maps for f in self.features)
        weights = np.stack(kernels)
        bias = np.broadcast_to(np.asarray(self.bias, float), len(kernels))
        ncc = self.match == "ncc"
        if ncc:
            weights = np.stack([_balanced(name, f, kernel) for f, kernel in zip(self.features, kernels, strict=True)])
        return Operation(
            kind="ncc" if ncc else self.type,
            name=name,
            windows=(y, x),
            inputs=len(maps),
            maps=named,
            block=match_normalised if ncc else convolve,
            doubt=doubt_of_matches if ncc else doubt_of_sums,
            boundary=Boundary(self.boundary),
            fill=self.fill,
            arrays={"weights": weights, "bias": bias},
            options={"divisor": depth * height * width if self.match == "mean" else 1},
            work=weights.size * repeats + (60 * len(maps) if ncc else 0),  # deviations of patches, whatever their size
            bound=1 + float(np.abs(bias).max()) if ncc else None,
            subject=f"feature '{self.features[0]}'",
        )

    def _kernel(self, name: str, feature: str, values: NDArray[np.float64], depth: int) -> NDArray[Any]:
        if values.ndim == 2:
            return np.broadcast_to(values, (depth, *values.shape))
        if len(values) != depth:
            takes = "one map at a time ('channels: each')" if self.channels == "each" else f"{depth} maps"
            other = ", or 'channels: each', which takes it over one map after another" if len(values) == 1 else ""
            raise StackError(
                f"layer '{name}': feature '{feature}' has {counted(len(values), 'channel')} and the layer takes "
                f"{takes}; give a feature with as many channels, or one of (y, x) that serves every map{other}"
            )
        return values


def _balanced(name: str, feature: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a feature with a mean of 0 and a sum of squares of 1 / n, over its n pixels."""
    centred = values - values.mean()
    centred -= centred.mean()  # what rounding left
    spread = np.sqrt((centred**2).sum() * centred.size)
    if spread <= FLAT * np.abs(values).sum():
        raise StackError(
            f"layer '{name}': feature '{feature}' is flat, so 'match: ncc' finds nothing in it; give a feature with "
            "contrast, or another match"
        )
    balanced: NDArray[np.float64] = centred / spread
    return balanced


def convolve(block: Block, operation: Operation) -> Block:
    """Add up one tap at a time, channel by channel, in reading order."""
    total = _sums(block, operation)
    kind = block.dtype.type
    if (divisor := operation.options["divisor"]) != 1:
        total /= kind(divisor)
    bias = operation.arrays["bias"].astype(kind)
    if bias.any():
        total += bias[:, None, None]
    return total.reshape(-1, *total.shape[2:])


def match_normalised(block: Block, operation: Operation) -> Block:
    """Divide the sums by the patches' deviations, in float64: those of an image with a large offset cancel."""
    wide = block.astype(np.float64)
    sums = _sums(wide, operation)
    deviations = deviation(wide, operation.arrays["weights"].shape[1], operation.windows)
    matches = score(sums, deviations, operation.arrays["bias"])
    return matches.reshape(-1, *matches.shape[2:]).astype(block.dtype)


def doubt_of_sums(block: Block, off: Block, even: NDArray[np.bool_], operation: Operation) -> Block:
    """Return how far sums may be off: what their terms are off, by the weights without their signs."""
    del even
    weights, bias = operation.arrays["weights"], operation.arrays["bias"]
    unsigned = replace(operation, arrays={"weights": np.abs(weights), "bias": np.zeros_like(bias)})
    return convolve(rounded(block, off, weights[0].size), unsigned)


def doubt_of_matches(block: Block, off: Block, even: NDArray[np.bool_], operation: Operation) -> Block:
    """Return how far normalised matches may be off, which are made in float64.

    With r, the root mean square of what a patch's pixels are off, its deviation d is off by r at the most, and so is
    its sum with a balanced feature: together 2 r / (d − r). Where d may be on either side of what counts as flat, the
    match may be anything.
    """
    weights = operation.arrays["weights"]
    count, depth = len(weights), weights[0].size
    share = {"weights": np.full((1, *weights.shape[1:]), 1 / depth)}
    off = np.sqrt(_sums(off**2, replace(operation, arrays=share))[:, 0])
    means, deviations = moments(block, weights.shape[1], operation.windows)
    limit = flat_below(means)
    found = np.minimum(2 * off / np.maximum(deviations - off, NOTHING), 2)
    found[deviations - off <= limit * (1 + FLAT) + FLAT * off] = 2
    found[(deviations + off <= limit - FLAT * off) | even] = 0
    return np.repeat(found, count, axis=0)


def _sums(block: Block, operation: Operation) -> Block:
    """Return the sums of feature times patch, (group of channels, feature, y, x)."""
    weights = operation.arrays["weights"].astype(block.dtype)
    count, depth, height, width = weights.shape
    batch = block.reshape(len(block) // depth, depth, *block.shape[1:])
    y, x = operation.windows
    rows, columns = ((n - w.span) // w.stride + 1 for n, w in zip(block.shape[1:], (y, x), strict=True))
    total = np.zeros((len(batch), count, rows, columns), block.dtype)
    for c, i, j in np.ndindex(depth, height, width):
        tap = batch[:, None, c, y.taps(i, block.shape[1]), x.taps(j, block.shape[2])]
        total += weights[None, :, c, i, j, None, None] * tap
    return total
