"""What of a config does not fit together: names that stand twice."""

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
