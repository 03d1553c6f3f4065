"""Parameters of every layer, for the contract of each and for the seams of those that have no drawing of their own."""

from typing import Any

import numpy as np

from pipeline.storage.metadata import Placed, Window, describe

FEATURES = {
    name: np.arange(1.0, np.prod(shape) + 1).reshape(shape) * (-1) ** np.arange(shape[-1])
    for name, shape in {"a34": (3, 4), "b34": (3, 4), "c22": (2, 2), "d15": (1, 5), "deep": (2, 3, 3)}.items()
}
"""No weight is zero, and no two cancel where a boundary folds."""

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "abs": [{}],
    "clip": [{"low": -0.5, "high": 0.75}, {"low": 0.0}, {"high": 0.25}],
    "convolution": [
        {"features": ["a34", "b34"], "bias": 0.5},
        {"features": "deep", "stride": 2, "match": "sum"},
        {"features": "c22", "dilation": (1, 4), "stride": (3, 1)},
        {"features": "c22", "dilation": (3, 2), "padding": "same", "boundary": "nearest"},
        {"features": "a34", "padding": "same", "fill": -1.5, "stride": (2, 3)},
        {"features": ["a34", "b34"], "padding": "same", "boundary": "reflect", "channels": "each"},
        {"features": "d15", "padding": "same", "boundary": "reflect", "dilation": (1, 3)},
        {"features": "a34", "match": "ncc", "bias": 0.25, "stride": (1, 2)},
        {"features": "deep", "match": "ncc", "padding": "same", "fill": 0.5},
        {"features": "a34", "match": "ncc", "padding": "same", "boundary": "nearest", "channels": "each"},
    ],
    "global_pool": [{"op": "max"}, {"op": "mean"}],
    "leaky_relu": [{}, {"slope": 2.5}],
    "normalise": [{}, {"scale": (2.0, -3.0), "offset": 0.5}],
    "pool": [
        *({"op": op, "window": (3, 2), "stride": s} for op in ("max", "min", "mean") for s in (1, 2, (2, 3))),
        {"window": 2, "stride": 2, "partial": "drop"},
        {"window": (1, 4), "stride": (2, 6)},
    ],
    "relu": [{}],
    "sigmoid": [{}],
    "softmax": [{}],
    "tanh": [{}],
    "threshold": [{"at": 0.25}, {"at": -0.1, "below": -1.0, "above": 1.0}],
    "vote": [
        {"weights": {"X": (0.5, -2.0), "O": (-0.5, 1.25)}, "bias": {"X": 0.25, "O": -0.125}},
        {"weights": {"a": {"m1": 3.0, "m0": 0.1}, "b": {"m0": -1.0, "m1": 0.7}, "c": (1.0, 1.0)}},
    ],
}
"""Parameters of each layer, in as many different ways as its window can lie."""


def described(*channels: str) -> dict[str, Any]:
    """OME-Zarr attributes of an image (c, y, x) of one level, in micrometres along y."""
    level = Placed("0", (1.0, 2.0, 3.0), (0.0, 10.0, 20.0))
    axes = (("c", None), ("y", "micrometer"), ("x", None))
    return describe("n", axes, [level], channels, [Window.of(0, 1)] * len(channels))
