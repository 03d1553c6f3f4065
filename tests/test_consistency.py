"""What of a config does not fit together: names that stand twice, and thresholds that no value can reach."""

import re
from typing import Any

import pytest

from pipeline.config import read
from pipeline.errors import ConfigError


def config(*layers: dict[str, Any], **output: Any) -> dict[str, Any]:
    return {
        "input": {"images": "a.zarr"},
        "features": {"dot": "#", "bank": {"generate": "gabor", "size": 3, "orientations": 2}},
        "layers": list(layers),
        "output": {"store": "out.zarr", **output},
    }


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (["dot", "dot"], "config: layers[0].features: 'dot' stands twice: two maps would have one name; leave one of"),
        (["bank", "dot", "bank"], "config: layers[0].features: 'bank' stands twice: two maps"),
        (["bank", "bank/1"], "config: layers[0].features: 'bank/1' stands twice, once in the family 'bank': two maps"),
    ],
)
def test_a_feature_stands_once_in_a_layer(features: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as told:
        read(config({"type": "convolution", "features": features}))
    assert str(told.value).count("\n") == 0
    twice = [{"type": "convolution", "name": name, "features": "dot"} for name in "ab"]
    read(config(*twice))


NCC = {"type": "convolution", "name": "match", "features": "bank", "match": "ncc"}
VOTE = {"type": "vote", "weights": {"x": [1, -2], "o": {"bank/0": 0, "bank/1": 3}}, "bias": {"x": 0.5, "o": 0}}
LIMITS: list[tuple[list[dict[str, Any]], float, float]] = [
    ([NCC], -1, 1),
    ([{**NCC, "bias": [0.5, -0.5]}], -1.5, 1.5),
    ([NCC, {"type": "relu"}], 0, 1),
    ([NCC, {"type": "abs"}], 0, 1),
    ([{**NCC, "bias": -3}, {"type": "abs"}], 2, 4),
    ([NCC, {"type": "clip", "low": -0.5}], -0.5, 1),
    ([NCC, {"type": "leaky_relu", "slope": 0.25}], -0.25, 1),
    ([NCC, {"type": "normalise", "scale": [1, -2], "offset": 0.5}], -1.5, 2.5),
    ([NCC, {"type": "threshold", "at": 0.5}], 0, 1),
    ([NCC, {"type": "threshold", "at": 0.5, "below": -4, "above": 3}], -4, 3),
    ([NCC, {"type": "pool", "op": "mean"}, {"type": "pool"}, {"type": "relu"}], 0, 1),
    ([NCC, VOTE], -3, 3.5),
    ([NCC, VOTE, {"type": "softmax"}], 0, 1),
    ([{"type": "convolution", "features": "dot"}, {"type": "sigmoid"}], 0, 1),
    ([{"type": "convolution", "features": "dot"}, {"type": "tanh"}], -1, 1),
    ([NCC, {"type": "relu"}, {"type": "global_pool"}], 0, 1),
]


@pytest.mark.parametrize(("layers", "low", "high"), LIMITS, ids=str)
def test_a_threshold_that_no_value_reaches_is_refused(layers: list[dict[str, Any]], low: float, high: float) -> None:
    for threshold in (low, high, (low + high) / 2):
        read(config(*layers, detections={"threshold": threshold}))
    for threshold in (low - 0.01, high + 0.01):
        with pytest.raises(ConfigError, match=rf"output.detections.threshold: {threshold:g} is outside of {low:g} to"):
            read(config(*layers, detections={"threshold": threshold}))


def test_a_threshold_of_values_without_limits_may_be_any() -> None:
    read(config({"type": "convolution", "features": "dot"}, {"type": "leaky_relu"}, detections={"threshold": -1e9}))
    relu = [{"type": "convolution", "features": "dot"}, {"type": "relu"}]
    read(config(*relu, detections={"threshold": 1e9}))
    with pytest.raises(ConfigError, match=r"-1 is outside of 0 to inf, the values of the layer 'relu'"):
        read(config(*relu, detections={"threshold": -1}))


def test_of_summaries_of_several_layers_one_may_reach_the_threshold() -> None:
    layers = [NCC, {"type": "relu"}]
    read(config(*layers, summaries={"layers": ["match", "relu"], "over": -0.5}))
    with pytest.raises(ConfigError, match=r"output.summaries.over: 2 is outside of -1 to 1, the values of .*'match'"):
        read(config(*layers, summaries={"layers": ["match", "relu"], "over": 2}))
