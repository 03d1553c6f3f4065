"""ONNX Runtime for convolutions of many channels, where it runs near the core's limit; one thread a worker.

Its blocked direct convolution adds up each output pixel on its own and in one order, so the bits do not depend on the
block. It takes that path for fewer than 8 input channels, or whole blocks of them: other counts are filled up with
channels of zero. The layer's other arithmetic (the division of a mean) stays outside the graph, because the graph
optimiser would fold it into the weights, and 9 · (1/9) is not 1 in every order of sums.

A ReLU after a convolution is done by the same graph while its pixels are in registers, where that gives the same bits
as a pass of its own: NaN stays NaN, and a bias of +0 makes of every −0 a +0 before the maximum.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Interval
from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_FEW = 8
_BLOCK = 16
"""Channels of a block: 8 with AVX2 or NEON, 16 with AVX-512; 16 serves all."""


def _blocked(channels: int) -> int:
    return channels if channels < _FEW else -(-channels // _BLOCK) * _BLOCK


def _session(operation: Operation, *, relu: bool) -> "InferenceSession":
    # Here, as both take long to load, and narrow stacks have no session.
    import onnxruntime as ort  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    weights = operation.arrays["weights"].astype(np.float32)
    count, depth, height, width = weights.shape
    filled = np.zeros((count, _blocked(depth), height, width), np.float32)
    filled[:, :depth] = weights
    y, x = operation.windows
    convolution = helper.make_node(
        "Conv",
        ["maps", "weights", "bias"] if relu else ["maps", "weights"],
        ["sums"],
        kernel_shape=[height, width],
        strides=[y.stride, x.stride],
        dilations=[y.dilation, x.dilation],
    )
    last = helper.make_node("Relu" if relu else "Identity", ["sums"], ["matches"])
    bias = operation.arrays["bias"].astype(np.float32) + np.float32(0)
    graph = helper.make_graph(
        [convolution, last],
        operation.kind,
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, [None, filled.shape[1], None, None])],
        [helper.make_tensor_value_info("matches", TensorProto.FLOAT, [None, count, None, None])],
        [numpy_helper.from_array(filled, "weights"), *([numpy_helper.from_array(bias, "bias")] if relu else [])],
    )
    # Opset 13 and IR 8 say all that is needed and are read by every supported version.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _fuse(operations: Sequence[Operation]) -> int:
    return 2 if len(operations) > 1 and operations[1].kind == "relu" and _joins(operations[0]) else 1


@lru_cache(maxsize=1024)
def _joins(operation: Operation) -> bool:
    """Try whether a graph with a ReLU gives what the convolution and then a ReLU give, to the bit."""
    if operation.options["divisor"] != 1:
        return False
    shape = [w.reach(Interval(0, n)) for w, n in zip(operation.windows, (5, 41), strict=True)]
    values = np.random.default_rng(7).standard_normal((operation.inputs, *map(len, shape)), np.float32)
    values[:, :, 20:] *= np.float32(1e-40)  # sums that round to −0 are among these
    values[0, -1, :3] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        alone = _kernel(operation, relu=False)(values)
        apart = np.maximum(alone, np.float32(0)) + np.float32(0)
        joined = _kernel(operation, relu=True)(values)
    hollow = np.isnan(alone)
    same = (joined.view(np.uint32) == apart.view(np.uint32)) & ~hollow
    return bool((same | (hollow & np.isnan(joined))).all())


def _build(operations: tuple[Operation, ...]) -> Kernel:
    return _kernel(operations[0], relu=len(operations) > 1)


def _kernel(operation: Operation, *, relu: bool) -> Kernel:
    session = _session(operation, relu=relu)
    depth = operation.arrays["weights"].shape[1]
    channels = _blocked(depth)
    divisor = np.float32(operation.options["divisor"])
    bias = operation.arrays["bias"].astype(np.float32)[:, None, None]

    def kernel(block: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = np.ascontiguousarray(block).reshape(-1, depth, *block.shape[1:])
        if channels != depth:
            batch = np.pad(batch, ((0, 0), (0, channels - depth), (0, 0), (0, 0)))
        matches: NDArray[np.float32] = session.run(None, {"maps": batch})[0]
        if not relu:
            if divisor != 1:
                matches /= divisor
            if bias.any():
                matches += bias
        return matches.reshape(-1, *matches.shape[2:])

    return kernel


def _scratch(operation: Operation, read: int, made: int) -> int:
    count, depth = (int(n) for n in operation.arrays["weights"].shape[:2])
    # The input filled up and reordered, the output in blocks and reordered back.
    return 4 * (2 * read * -(-depth // _BLOCK) * _BLOCK + 2 * made * -(-count // _BLOCK) * _BLOCK)


_TAPS, _FEW_TAPS, _COPIES = 4.3e10, 1.3e10, 5e9
"""Of one core of an AMD EPYC of the third generation: multiply-adds a second in blocks of channels and with few
channels, bytes a second into the blocks and out of them."""


def _cost(operation: Operation) -> float:
    if operation.kind != "convolution":
        return 0.0  # what the graph does beside
    count, depth, height, width = operation.arrays["weights"].shape
    taps: int = operation.inputs // depth * count * _blocked(depth) * height * width
    copied = 4 * (_blocked(operation.inputs) + _blocked(count))
    return taps / (_TAPS if depth >= _FEW else _FEW_TAPS) + copied / _COPIES


BACKEND = Backend(
    "onnxruntime", supports=lambda o: o.kind == "convolution", build=_build, fuse=_fuse, cost=_cost, scratch=_scratch
)
