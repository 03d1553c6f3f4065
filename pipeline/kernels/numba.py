"""Loops compiled by Numba: narrow convolutions, point layers and pooling, and several of them in one pass.

A convolution, the point layers after it and a pooling become one loop over rows (`pipeline.compiled.vector`), in which
nothing is written at full resolution. One layer alone runs through the same loop, so fusing changes no bit. Features
that are the product of a column and a row are made by two passes of one dimension.

A maximum and a minimum commute with steps that never decrease: divisions by a positive number, sums, ReLU. Correct
rounding never decreases either, so pooling first gives the same bits with less work.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import vector
from pipeline.compiled.lanes import flat
from pipeline.compiled.pooling import COPY, MAX, MIN, SUM
from pipeline.compiled.strips import run_strips
from pipeline.compiled.taps import SeparableTaps, Taps, separate
from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation
from pipeline.padded import Scattered
from pipeline.room import Room

_POINT = ("relu", "normalise", "abs", "clip", "leaky_relu")
_JOIN = {"max": MAX, "min": MIN, "mean": SUM}

_TAPS = {1: 2.2e10, 2: 2.7e10, 3: 3e10, 4: 3.4e10}
"""Multiply-adds a second of one core of an AMD EPYC of the third generation, for so many features at a time."""

_BETWEEN, _POINT_SECONDS = 5e-10, 2e-10
"""Seconds for a pixel of one map: written between two passes and read again; a point layer or a pooling."""

_STRIP = 2**18
"""Bytes of map values that are made of raw pixels at a time, at least four times what two strips have in common; and
half the bytes of maps that are made of them."""

_NO_TAPS = (np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.int64))

Array = NDArray[np.float32]
Steps = list[tuple[int, Array]]
"""Codes of point steps, each with a number a map."""


def _fuse(operations: Sequence[Operation]) -> int:
    """Return how many leading operations one pass makes: a convolution, point layers, and a pooling, each if there."""
    count = 1 if operations[0].kind == "convolution" else 0
    while count < len(operations) and operations[count].kind in _POINT:
        count += 1
    if count < len(operations) and operations[count].kind == "pool":
        count += 1
    return count


def _supports(operation: Operation) -> bool:
    return operation.kind in ("convolution", "pool", *_POINT)


def _steps(operation: Operation) -> Steps:
    """Return what an operation does to each pixel on its own, as the NumPy reference does it."""
    steps: list[tuple[int, Any]] = []
    arrays = {key: values.astype(np.float32) for key, values in operation.arrays.items()}
    match operation.kind:
        case "relu":
            steps = [(vector.FLOOR, 0)]
        case "leaky_relu":
            steps = [(vector.LEAK, arrays["slope"])]
        case "abs":
            steps = [(vector.ABS, 0)]
        case "clip":  # 0 is added so that there is no −0 beside a bound of 0
            bounds = (("high", vector.CEILING), ("low", vector.FLOOR))
            steps = [(vector.ADD, 0), *((code, arrays[key] + np.float32(0)) for key, code in bounds if key in arrays)]
        case "normalise":
            steps = [(vector.SCALE, arrays["scale"]), (vector.ADD, arrays["offset"])]
        case "convolution":
            if (divisor := operation.options["divisor"]) != 1:
                steps.append((vector.DIVIDE, divisor))
            if arrays["bias"].any():
                steps.append((vector.ADD, np.tile(arrays["bias"], len(operation.maps) // len(arrays["bias"]))))
    return [(code, np.broadcast_to(np.float32(numbers), len(operation.maps))) for code, numbers in steps]


def _never_decrease(steps: Steps) -> bool:
    return all(code != vector.ABS and (code != vector.SCALE or bool((numbers > 0).all())) for code, numbers in steps)


def _parts(operation: Operation) -> list[tuple[Array, Array]] | None:
    """Return the columns and rows of a convolution's features where all of them are products and that pays."""
    weights = operation.arrays["weights"]
    _, depth, height, width = weights.shape
    if depth > 1 or height * width / _taps_a_second(operation) <= _pair_seconds(operation):
        return None
    parts = [separate(feature) for feature in weights[:, 0]]
    return None if None in parts else [part for part in parts if part]


def _taps(operation: Operation) -> Taps | SeparableTaps:
    parts = _parts(operation)
    if parts is None:
        return Taps(operation.arrays["weights"], operation.inputs, operation.windows)
    columns, rows = zip(*parts, strict=True)
    return SeparableTaps(columns, rows, operation.inputs, operation.windows)


def _window(head: Operation) -> tuple[int, int]:
    """Return span and stride along y of the convolution that a pass begins with, if it does."""
    return (head.windows[0].span, head.windows[0].stride) if head.kind == "convolution" else (1, 1)


def _pooling(last: Operation) -> tuple[int, int, int, int, int]:
    """Return how the pooling that a pass ends with joins, if it does, and window and stride for y and for x."""
    if last.kind != "pool":
        return COPY, 1, 1, 1, 1
    y, x = last.windows
    return _JOIN[str(last.options["op"])], y.size, y.stride, x.size, x.stride


def _build(operations: tuple[Operation, ...]) -> Kernel:
    head, last = operations[0], operations[-1]
    taps = _taps(head) if head.kind == "convolution" else None
    pool = last if last.kind == "pool" else None
    steps = [step for operation in operations for step in _steps(operation)]
    codes = np.array([code for code, _ in steps], np.int64)
    numbers = np.array([n for _, n in steps], np.float32).reshape(len(steps), len(last.maps))
    commute = pool is not None and pool.options["op"] != "mean" and _never_decrease(steps)
    window, pooling = _window(head), _pooling(last)

    def kernel(block: Array | Scattered, out: Array | None = None, room: Room | None = None) -> NDArray[Any]:
        rows, columns = shape = block.shape[1:]
        for operation in operations:
            shape = tuple((n - w.span) // w.stride + 1 for n, w in zip(shape, operation.windows, strict=True))
            if operation is head and taps:
                rows, columns = shape
        into = out if room is None else room.numbers
        made = np.empty((len(last.maps), *shape), np.float32) if into is None else into
        steps = columns, codes, numbers, 0 if commute else len(codes), pooling, (len(last.maps), *shape)
        if isinstance(block, Scattered):
            inputs, _, wide = block.shape
            strip = _strip(shape[0], (4 * wide * inputs, 4 * len(last.maps) * shape[1]), pooling[1:3], window)
            tables = taps.tables(wide, strip[1] * wide, wide) if isinstance(taps, Taps) else (columns, *_NO_TAPS)
            place = block.source, (inputs, wide), strip, window, tables
            if room:
                room.see(*run_strips(*place, *steps, *_stored(room, strip[0])))
            else:
                run_strips(*place, *steps, flat(made))
        else:
            laid = taps.lay(block) if taps else (np.ascontiguousarray(block).reshape(-1), columns, *_NO_TAPS)
            vector.run_rows(*laid, rows, *steps, flat(made))
        return made

    return kernel


def _strip(height: int, row: tuple[int, int], pool: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Return the output rows of a strip, and the rows of map values that they need.

    ``row`` is the bytes of a row that is read and of one that is made. ``pool`` and ``window`` are window and stride
    along y of the pooling, and span and stride of the convolution.
    """
    step, reach = pool[1] * window[1], (pool[0] - 1) * window[1] + window[0]
    rows = max(_STRIP // row[0], 5 * reach)
    lift = max(1, min(height, (rows - reach) // step + 1, 2 * _STRIP // row[1]))
    return lift, (lift - 1) * step + reach


def _stored(room: Room, lift: int) -> tuple[Any, ...]:
    """Return what tells `run_strips` where maps go, strips of so many rows, and how they are stored there."""
    looks, encoding = (room.rows, room.columns, room.pixels), room.encoding
    if encoding.dtype == "float32":
        return flat(room.numbers), None, None, looks
    maps, _, width = room.numbers.shape
    numbers = room.numbers.view(np.uint16) if encoding.dtype == "float16" else room.numbers
    return flat(np.empty((maps, lift, width), np.float32)), flat(numbers), encoding.counting, looks


def _by_strips(operation: Operation) -> bool:
    """Say whether map values are made strip by strip: not where a block is laid out anew or gone through twice."""
    return operation.kind != "convolution" or (operation.windows[1].stride == 1 and _parts(operation) is None)


def _strip_bytes(operations: Sequence[Operation], shape: tuple[int, ...]) -> int:
    """Return the bytes of a strip's map values, of its maps where others are stored, and of rows under the pooling."""
    head, last, width = operations[0], operations[-1], shape[1]
    window, pooling = _window(head), _pooling(last)
    columns = (width - 1) * pooling[4] + pooling[3]
    wide = columns + (head.windows[1].span - 1 if head.kind == "convolution" else 0)
    maps, under = len(last.maps), pooling[1] if last.kind == "pool" else 0
    lift, high = _strip(shape[0], (4 * wide * head.inputs, 4 * maps * width), pooling[1:3], window)
    return 4 * (head.inputs * high * wide + maps * (lift * width + under * columns))


def _scratch(operation: Operation, read: int, made: int) -> int:
    del made
    maps = len(operation.maps) if operation.kind == "convolution" and _parts(operation) else operation.inputs
    return 4 * read * max(maps, operation.inputs)  # the block laid out anew, or what the pass down makes


def _taps_a_second(operation: Operation) -> float:
    return _TAPS[min(len(operation.arrays["weights"]), max(_TAPS))]


def _pair_seconds(operation: Operation) -> float:
    """Return the seconds for a pixel of one map by a pass down, for all features together, and one across, for each."""
    height, width = (w.size for w in operation.windows)
    return height / _taps_a_second(operation) + width / _TAPS[1] + _BETWEEN


def _cost(operation: Operation) -> float:
    maps = len(operation.maps)
    if operation.kind != "convolution":
        return maps * _POINT_SECONDS
    return maps * _pair_seconds(operation) if _parts(operation) else operation.work / _taps_a_second(operation)


BACKEND = Backend(
    "numba",
    supports=_supports,
    build=_build,
    fuse=_fuse,
    cost=_cost,
    scratch=_scratch,
    steady=True,
    writes=True,
    by_strips=_by_strips,
    strip_bytes=_strip_bytes,
)
