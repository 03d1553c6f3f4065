"""The stack by other means: NumPy's padding and SciPy's correlation in float64, a whole image at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import correlate


def knows(layer: Mapping[str, Any]) -> bool:
    """Whether this module can do a layer."""
    return layer["type"] in {"convolution", "pool", "relu", "normalise", "vote"} and layer.get("match") != "ncc"


_PAD = {"constant": "constant", "reflect": "reflect", "nearest": "edge"}

Maps = NDArray[np.float64]


def _convolution(maps: Maps, layer: Mapping[str, Any], features: Mapping[str, Maps]) -> tuple[Maps, float]:
    kernels = [features[name] for name in layer["features"]]
    dilation, stride = layer.get("dilation", (1, 1)), layer.get("stride", (1, 1))
    if layer.get("padding") == "same":
        pads = [d * (k - 1) for d, k in zip(dilation, kernels[0].shape[-2:], strict=True)]
        widths = [(0, 0), *((p // 2, p - p // 2) for p in pads)]
        mode = layer.get("boundary", "constant")
        fill = {"constant_values": layer.get("fill", 0)} if mode == "constant" else {}
        maps = np.pad(maps, widths, _PAD[mode], **fill)
    each = layer.get("channels") == "each"
    groups = [maps[c : c + 1] for c in range(len(maps))] if each else [maps]
    bias = np.broadcast_to(layer.get("bias", 0.0), len(kernels))
    out, gain = [], 0.0
    for group in groups:
        for kernel, shift in zip(kernels, bias, strict=True):
            full = np.broadcast_to(kernel, (len(group), *kernel.shape[-2:]))
            spread = np.zeros(
                (len(group), *(d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[-2:], strict=True)))
            )
            spread[:, :: dilation[0], :: dilation[1]] = full
            hit = correlate(group, spread, mode="valid", method="direct")[0]
            count = full.size if layer.get("match", "mean") == "mean" else 1
            out.append(hit[:: stride[0], :: stride[1]] / count + shift)
            gain = max(gain, np.abs(full).sum() / count + abs(shift))
    return np.stack(out), gain


def _pool(maps: Maps, layer: Mapping[str, Any]) -> tuple[Maps, float]:
    window, stride = layer.get("window", (2, 2)), layer.get("stride", (2, 2))
    widths = [(0, 0)]
    for extent, k, s in zip(maps.shape[1:], window, stride, strict=True):
        starts = range(0, extent, s)
        if layer.get("partial", "keep") == "keep":
            # Every start inside the map up to the first whose window reaches the edge.
            kept = [a for n, a in enumerate(starts) if n == 0 or starts[n - 1] + k < extent]
        else:
            kept = [a for a in starts if a + k <= extent]
        widths.append((0, max(0, kept[-1] + k - extent)))
    padded = np.pad(maps, widths, constant_values=np.nan)
    views = sliding_window_view(padded, window, (1, 2))[:, :: stride[0], :: stride[1]]
    if layer.get("partial", "keep") == "keep":
        rows, columns = (-(-max(0, n - k) // s) + 1 for n, k, s in zip(maps.shape[1:], window, stride, strict=True))
        rows, columns = (
            min(rows, -(-maps.shape[1] // stride[0])),
            min(columns, -(-maps.shape[2] // stride[1])),
        )
        views = views[:, :rows, :columns]
    join = {"max": np.nanmax, "min": np.nanmin, "mean": np.nanmean}[layer.get("op", "max")]
    return join(views, axis=(-2, -1)), 1.0


def run(image: Maps, layers: Sequence[Mapping[str, Any]], features: Mapping[str, Maps]) -> tuple[Maps, float]:
    """Return the last map of a stack over map values (c, y, x), and the magnitude its sums may pass through.

    Layers are written with pairs for stride, dilation and window, as tuples.
    """
    maps = image.astype(np.float64)
    magnitude = float(np.abs(maps).max())
    for layer in layers:
        gain = 1.0
        match layer["type"]:
            case "convolution":
                maps, gain = _convolution(maps, layer, features)
                magnitude = max(magnitude, 1.0)
            case "pool":
                maps, gain = _pool(maps, layer)
            case "relu":
                maps = np.maximum(maps, 0)
            case "normalise":
                maps = maps * layer["scale"] + layer["offset"]
                magnitude = magnitude * abs(layer["scale"]) + abs(layer["offset"])
            case "vote":
                table = np.array(list(layer["weights"].values()))
                bias = np.array(list(layer["bias"].values()))
                maps = np.einsum("km,myx->kyx", table, maps) + bias[:, None, None]
                gain = np.abs(table).sum(axis=1).max() + np.abs(bias).max()
                magnitude = max(magnitude, 1.0)
        magnitude *= gain
    return maps, magnitude
