"""What decides the bits of a run, as plain data: a run may go on with a store only where this is the same."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.agreement import own

FORMAT = 3
"""Of the records, and of what they call an image's metadata; a store of another is not gone on with."""

DECIDING = ("haloflow", "numpy", "scipy", "numba", "onnxruntime", "numcodecs")
"""The packages whose versions may change a result's bits or a chunk's bytes."""


def identity(
    config: Mapping[str, Any], features: Mapping[str, NDArray[np.float64]], kernel: str | None
) -> dict[str, Any]:
    """Return what decides the bits of a run.

    Parameters
    ----------
    config
        As plain data. Where the store lies decides nothing, nor does whether missing chunks are refused; and of
        features their numbers count, not how they are written.
    features
        The features' numbers.
    kernel
        The kernel that was forced, if any.
    """
    given = {key: value for key, value in config["input"].items() if key != "missing"}
    output = {key: value for key, value in config["output"].items() if key != "store"}
    return {
        "input": given,
        **{key: value for key, value in config.items() if key not in ("input", "features", "output")},
        "features": {name: _digest_of(array) for name, array in features.items()},
        "output": output,
        "kernel": kernel,
        "format": FORMAT,
        "versions": {name: found for name in DECIDING if isinstance(found := own()[name], str)},
    }


def digest(plain: Any) -> str:
    """Return a name of 32 letters for plain data: other data, another name."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:32]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in what two identities differ, by the path of each key.

    >>> differences({"layers": [{"stride": 2}], "kernel": None}, {"layers": [{"stride": 3}], "kernel": None})
    ['layers[0].stride: 2 → 3']
    """
    before, after = dict(_leaves("", old)), dict(_leaves("", new))
    return [
        f"{path}: {before.get(path, 'nothing')} → {after.get(path, 'nothing')}"
        for path in dict.fromkeys([*before, *after])
        if before.get(path, _NOTHING) != after.get(path, _NOTHING)
    ]


_NOTHING = object()


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping | list | tuple) for inner in value):
        for number, inner in enumerate(value):
            yield from _leaves(f"{path}[{number}]", inner)
    else:
        yield path, list(value) if isinstance(value, tuple) else value


def _digest_of(array: NDArray[np.float64]) -> str:
    named = f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(named).hexdigest()[:16]
