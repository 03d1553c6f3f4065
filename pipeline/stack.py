"""The backward walk of regions and the forward run of layers.

For a wanted region of any layer's map the walk pulls backwards, layer by layer, clipping to each map's own extent;
the run then goes forwards and pads, at every layer, what was clipped. Padding thus happens at the true edge of each
layer's own map and nowhere else. This one function makes the whole image, a Zarr task, a tile and a lazy Dask block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StackError
from pipeline.geometry import Interval, Pull, Region, Window, compose, hull, is_empty, whole
from pipeline.kernels import choose, kernel_for
from pipeline.layers import Layer
from pipeline.operation import Block, Operation

EMPTY: Region = (Interval(0, 0), Interval(0, 0))


@dataclass(frozen=True)
class Walk:
    """For each operation the region of its own map to make, and before them the region of the input to read."""

    needed: tuple[Region, ...]

    @property
    def read(self) -> Region:
        """The region of the input."""
        return self.needed[0]


@dataclass(frozen=True)
class BoundStack:
    """A stack that knows the maps it gets: one operation per layer."""

    operations: tuple[Operation, ...]

    def extents(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the (y, x) extents of the input and of each layer's map.

        Raises `StackError` where a feature or window is larger than the map it meets.
        """
        found = [tuple(shape)]
        for place, operation in enumerate(self.operations, 1):
            before = found[-1]
            after = tuple(w.output_extent(n) for w, n in zip(operation.windows, before, strict=True))
            if min(after) < 1:
                spans = " × ".join(str(w.span) for w in operation.windows)
                raise StackError(
                    f"layer {place} '{operation.name}': {operation.subject} spans {spans}, the map is "
                    f"{before[0]} × {before[1]}; no place is left for it"
                )
            found.append(after)
        return tuple(found)

    def strides(self, upto: int) -> tuple[int, ...]:
        """Return how many input pixels (y, x) one pixel of the map after layer ``upto`` (from 0) steps over."""
        return tuple(window.stride for window in self.window(upto))

    def window(self, upto: int) -> tuple[Window, ...]:
        """Return the composed windows (y, x) of all layers up to ``upto`` (from 0): size = receptive field."""
        through = self.operations[: upto + 1]
        return tuple(compose([operation.windows[axis] for operation in through]) for axis in (0, 1))

    def pulls(self, place: int, output: Region, extents: Sequence[tuple[int, ...]]) -> tuple[Pull, ...]:
        """Return what layer ``place`` (from 0) needs of the map before it to make ``output`` of its own."""
        operation = self.operations[place]
        return tuple(
            window.pull(interval, extent, operation.boundary)
            for window, interval, extent in zip(operation.windows, output, extents[place], strict=True)
        )

    def walk(self, wanted: Mapping[int, Region], extents: Sequence[tuple[int, ...]]) -> Walk:
        """Return the regions needed to make the ``wanted`` ones, given by the layer's place from 0."""
        needed = [EMPTY] * (len(self.operations) + 1)
        for place in reversed(range(len(self.operations))):
            made = needed[place + 1] = hull(needed[place + 1], wanted.get(place, EMPTY))
            if not is_empty(made):
                needed[place] = tuple(pull.read for pull in self.pulls(place, made, extents))
        return Walk(tuple(needed))

    def run(
        self,
        block: Block,
        walk: Walk,
        wanted: Mapping[int, Region],
        extents: Sequence[tuple[int, ...]],
        kernels: Sequence[Callable[[Block], Block]],
    ) -> dict[int, Block]:
        """Return the wanted regions of maps, from a block of map values that is the walk's region of the input."""
        made: dict[int, Block] = {}
        with np.errstate(all="ignore"):  # NaN and ±inf are values like others here
            for place, (operation, kernel) in enumerate(zip(self.operations, kernels, strict=True)):
                have, make = walk.needed[place : place + 2]
                if is_empty(make):
                    break
                pulls = self.pulls(place, make, extents)
                block = kernel(_padded(block, have, pulls, operation))
                if operation.average:
                    block = block / _real_taps(operation, make, extents[place]).astype(block.dtype)
                if not is_empty(region := wanted.get(place, EMPTY)):
                    kept = block[:, region[0].within(make[0]), region[1].within(make[1])]
                    made[place] = _one_nan(kept)
        return made


def _one_nan(maps: Block) -> Block:
    """Give every NaN the same bits: which sign and payload survive depends on a vector loop's lanes."""
    hollow = np.isnan(maps)
    if hollow.any():
        maps[hollow] = np.nan
    return maps


def _padded(block: Block, have: Region, pulls: tuple[Pull, ...], operation: Operation) -> Block:
    """Cut the block to what a layer reads and pad what was clipped at the edges of the map."""
    rows, columns = (pull.read.within(interval) for pull, interval in zip(pulls, have, strict=True))
    block = block[:, rows, columns]
    for axis, pull in enumerate(pulls, 1):
        if not pull.is_padded:
            continue
        sources = pull.sources(operation.boundary)
        block = np.take(block, [s or 0 for s in sources], axis)
        filled = [slice(None)] * 3
        filled[axis] = np.array([s is None for s in sources])  # type: ignore[call-overload]
        block[tuple(filled)] = operation.fill
    return block


def _real_taps(operation: Operation, made: Region, extents: tuple[int, ...]) -> NDArray[np.int64]:
    y, x = (w.real_taps(i, n) for w, i, n in zip(operation.windows, made, extents, strict=True))
    counts: NDArray[np.int64] = np.array(y)[:, None] * np.array(x)
    return counts


@dataclass(frozen=True)
class Stack:
    """Layers and the features they name, not yet tied to an image."""

    layers: tuple[Layer, ...]
    features: Mapping[str, NDArray[np.float64]]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Each layer's name: its own, or its type, the second one ``pool_2`` and so on."""
        return layer_names(self.layers)

    def bind(self, maps: tuple[str, ...]) -> BoundStack:
        """Return the stack for an image of the named channels; raises `StackError` where they do not fit."""
        operations: list[Operation] = []
        for name, layer in zip(self.names, self.layers, strict=True):
            operations.append(layer.bind(name, maps, self.features))
            maps = operations[-1].maps
        return BoundStack(tuple(operations))


def layer_names(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return each layer's name: its own, or its type, with a number from the second of a type on.

    >>> from pipeline.layers import LAYERS
    >>> relu, pool = LAYERS["relu"](type="relu"), LAYERS["pool"](type="pool")
    >>> layer_names([pool, relu, pool])
    ('pool', 'relu', 'pool_2')
    """
    names, seen = [], dict[str, int]()
    for layer in layers:
        seen[layer.type] = seen.get(layer.type, 0) + 1
        numbered = layer.type if seen[layer.type] == 1 else f"{layer.type}_{seen[layer.type]}"
        names.append(layer.name or numbered)
    return tuple(names)


def run_whole(
    stack: BoundStack, maps: NDArray[np.float32], place: int, kernels: Sequence[str] | None = None
) -> NDArray[np.float32]:
    """Return the whole map of layer ``place`` (from 0) for a whole image of map values."""
    extents = stack.extents(maps.shape[1:])
    names = kernels or [choose(operation).backend for operation in stack.operations]
    wanted = {place: whole(extents[place + 1])}
    walk = stack.walk(wanted, extents)
    chosen = [kernel_for(operation, name) for operation, name in zip(stack.operations, names, strict=True)]
    rows, columns = (i.within(Interval(0, 0)) for i in walk.read)
    made = stack.run(maps[:, rows, columns], walk, wanted, extents, chosen)
    return made[place].astype(np.float32, copy=False)
