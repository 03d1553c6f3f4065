"""A stack over a Dask array, lazily: one task for each output block, and one for each neighbour's cut piece.

The blocks of the output follow the blocks of the input, so the result composes with the user's own graph.
"""

import operator
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, pairwise, product
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from pipeline.execute.decisions import joined
from pipeline.geometry import Interval, Region, whole
from pipeline.given import Raw
from pipeline.pixels import PixelScale
from pipeline.sections import Summaries
from pipeline.stack import BoundStack, finished
from pipeline.tables.sums import Sums, sum_up


def stack_lazily(image: Any, stack: BoundStack, scale: PixelScale, place: int) -> Any:
    """Return the map of layer ``place`` (from 0) of a Dask array (c, y, x) as a lazy float32 Dask array."""
    extents = stack.extents(image.shape[1:])
    inputs = [[Interval(*ends) for ends in pairwise(accumulate(sizes, initial=0))] for sizes in image.chunks]
    outputs = [
        _blocks(intervals, stride, extent)
        for intervals, stride, extent in zip(inputs[1:], stack.strides(place), extents[place + 1], strict=True)
    ]
    name = f"haloflow-{tokenize(image, [o.digest for o in stack.operations], stack.choices, scale, place)}"
    held = f"{name}-stack"  # once in the graph: its weights may be large
    graph: dict[Any, Any] = {held: DataNode(held, stack)}
    for numbers in product(*(range(len(axis)) for axis in outputs)):
        region = tuple(axis[n] for axis, n in zip(outputs, numbers, strict=True))
        have = stack.walk({place: region}, extents).read
        pieces = [
            [
                [_piece(graph, name, image.name, (c, *at), cut, inputs) for at, cut in row]
                for row in _overlaps(inputs[1:], have)
            ]
            for c in range(len(inputs[0]))
        ]
        key = (name, 0, *numbers)
        nested = List(*(List(*(List(*row) for row in plane)) for plane in pieces))
        graph[key] = Task(key, _run_block, nested, TaskRef(held), scale, place, region, extents)
    channels = len(stack.operations[place].maps)
    chunks = ((channels,), *(tuple(len(i) for i in axis) for axis in outputs))
    layered = HighLevelGraph.from_collections(name, graph, dependencies=[image])
    return da.Array(layered, name, chunks, meta=np.empty((0, 0, 0), np.float32))


def _blocks(inputs: Sequence[Interval], stride: int, extent: int) -> list[Interval]:
    """Return the output blocks: each input block owns the outputs whose first input pixel lies in it."""
    ends = [min(-(-block.stop // stride), extent) for block in inputs[:-1]] + [extent]
    starts = [0, *ends[:-1]]
    return [Interval(a, b) for a, b in zip(starts, ends, strict=True) if b > a]


def _overlaps(inputs: Sequence[Sequence[Interval]], have: Region) -> list[list[tuple[tuple[int, int], Region]]]:
    """Return, row by row, the input blocks that a region touches and what of them it needs, in their own frame."""
    touched = []
    for axis, interval in zip(inputs, have, strict=True):
        cuts = [(n, block.intersect(interval), block) for n, block in enumerate(axis)]
        touched.append([(n, c.moved(-b.start)) for n, c, b in cuts if len(c)])
    return [[((i, j), (rows, columns)) for j, columns in touched[1]] for i, rows in touched[0]]


def _piece(
    graph: dict[Any, Any], name: str, source: str, at: tuple[int, ...], cut: Region, inputs: Sequence[Any]
) -> TaskRef:
    """Return the key of a piece of an input block; a block taken whole needs no task of its own."""
    key = (source, *at)
    sizes = [len(axis[n]) for axis, n in zip(inputs[1:], at[1:], strict=True)]
    if cut == whole(sizes):
        return TaskRef(key)
    token = "-".join(f"{i.start}.{i.stop}" for i in cut)
    piece = (f"{name}-piece-{token}", *at)
    graph[piece] = Task(piece, _cut, TaskRef(key), cut)
    return TaskRef(piece)


def _cut(block: NDArray[Any], region: Region) -> NDArray[Any]:
    return block[:, region[0].start : region[0].stop, region[1].start : region[1].stop]


def _run_block(
    pieces: list[list[list[NDArray[Any]]]],
    stack: BoundStack,
    scale: PixelScale,
    place: int,
    region: Region,
    extents: Sequence[tuple[int, ...]],
) -> NDArray[np.float32]:
    wanted = {place: region}
    walk = stack.walk(wanted, extents)
    # Blocks may be of another type than their array says; what compiled loops read must be of the scale's.
    raw = np.block(pieces).astype(scale.dtype, copy=False)
    return finished(stack.run(Raw([(walk.read, raw)], scale), walk, wanted, extents)[place])


def join_lazily(maps: Any, after: BoundStack) -> Any:
    """Return as a lazy Dask array what layers make of lazy maps (c, y, x), the first of which joins whole ones."""
    parts = [dask.delayed(_summed)(block) for block in maps.to_delayed().ravel()]
    one = dask.delayed(_added)(after, parts)
    return da.from_delayed(one, (len(after.operations[-1].maps), 1, 1), np.float32)


def _summed(block: NDArray[np.float32]) -> list[Sums]:
    region = whole(block.shape[1:])
    return [sum_up(Summaries(), values, region, region) for values in np.ascontiguousarray(block)]


def _added(after: BoundStack, parts: Sequence[Sequence[Sums]]) -> NDArray[np.float32]:
    return joined(after, [reduce(operator.add, sums) for sums in zip(*parts, strict=True)])
