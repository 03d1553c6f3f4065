"""The backward walk of regions and the forward run of layers.

For a wanted region of any layer's map the walk pulls backwards, layer by layer, clipping to each map's own extent;
the run then goes forwards and pads, at every layer, what was clipped. Padding thus happens at the true edge of each
layer's own map and nowhere else. This one function makes the whole image, a Zarr task, a tile and a lazy Dask block.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled.loops import survey
from pipeline.errors import StackError
from pipeline.geometry import Interval, Pull, Region, Window, cells, compose, hull, is_empty, whole
from pipeline.given import Given, Held, Raw, within
from pipeline.kernels import BACKENDS, Choice, choose, kernel_for
from pipeline.layers import Layer
from pipeline.operation import Block, Operation
from pipeline.padded import Scattered, padded, scattered
from pipeline.room import Room

EMPTY: Region = (Interval(0, 0), Interval(0, 0))


@dataclass(frozen=True)
class Walk:
    """For each operation the region of its own map to make, and before them the region of the input to read.

    ``pulls`` says for each operation what it needs of the map before it; empty where it makes nothing.
    """

    needed: tuple[Region, ...]
    pulls: tuple[tuple[Pull, ...], ...]

    @property
    def edges(self) -> tuple[bool, bool]:
        """Whether, for y and for x, an edge of any layer's map is met, so that something is padded there."""
        met = [pull for pull in self.pulls if pull]
        return any(pull[0].is_padded for pull in met), any(pull[1].is_padded for pull in met)

    @property
    def read(self) -> Region:
        """The region of the input."""
        return self.needed[0]


@dataclass(frozen=True)
class BoundStack:
    """A stack that knows the maps it gets: one operation per layer, and the kernel chosen for each."""

    operations: tuple[Operation, ...]
    choices: tuple[Choice, ...]

    def part(self, first: int, end: int) -> "BoundStack":
        """Return the stack of the layers ``first`` … ``end - 1``."""
        return BoundStack(self.operations[first:end], self.choices[first:end])

    @property
    def local(self) -> int:
        """How many layers from the first on are local; the next, if there is one, joins whole maps."""
        return next((n for n, operation in enumerate(self.operations) if operation.joins_all), len(self.operations))

    @property
    def doubted(self) -> tuple[Operation, ...]:
        """The operations, each with the doubt of what its kernel makes."""
        return tuple(
            BACKENDS[choice.backend].doubted(operation)
            for operation, choice in zip(self.operations, self.choices, strict=True)
        )

    def steps(self, kept: Iterable[int]) -> Iterator[range]:
        """Give the layers that one kernel makes in one pass, pass by pass; what is kept ends a pass."""
        kept, start, count = frozenset(kept), 0, len(self.operations)
        while start < count:
            stop = start + 1
            while stop < count and stop - 1 not in kept:
                stop += 1
            stop = start + BACKENDS[self.choices[start].backend].fuse(self.operations[start:stop])
            yield range(start, stop)
            start = stop

    def extents(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the (y, x) extents of the input and of each layer's map, of one pixel where whole maps are joined.

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
            found.append((1, 1) if operation.joins_all else after)
        return tuple(found)

    def strides(self, upto: int) -> tuple[int, ...]:
        """Return how many input pixels (y, x) one pixel of the map after layer ``upto`` (from 0) steps over."""
        return tuple(window.stride for window in self.window(upto))

    def window(self, upto: int) -> tuple[Window, ...]:
        """Return the composed windows (y, x) of all layers up to ``upto`` (from 0): size = receptive field."""
        through = self.operations[: upto + 1]
        return tuple(compose([operation.windows[axis] for operation in through]) for axis in (0, 1))

    def cut(
        self, upto: int, axis: int, at: NDArray[np.int64], extents: Sequence[tuple[int, ...]]
    ) -> NDArray[np.float64]:
        """Return how far pixels of the map after layer ``upto`` (from 0) lie before the middle of their windows.

        It is in input pixels along an axis, and half of what the edge cuts off the windows of pools: what is left lies
        in the image.
        """
        high = whole = np.asarray(at)
        for place in reversed(range(upto + 1)):
            window, extent = self.operations[place].windows[axis], extents[place][axis]
            last = window.output_extent(extent) - 1
            beyond = np.minimum(high, last) * window.stride + window.span - extent if window.partial else 0
            whole, high = (n * window.stride + window.span - 1 - window.pad_lo for n in (whole, high))
            high = high - np.maximum(beyond, 0)
        return (whole - high) / 2

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
        pulls: list[tuple[Pull, ...]] = [()] * len(self.operations)
        for place in reversed(range(len(self.operations))):
            made = hull(needed[place + 1], wanted.get(place, EMPTY))
            if not is_empty(made):
                cell = BACKENDS[self.choices[place].backend].cell(self.operations[place])
                made = cells(made, cell, extents[place + 1])
                pulls[place] = self.pulls(place, made, extents)
                needed[place] = tuple(pull.read for pull in pulls[place])
            needed[place + 1] = made
        return Walk(tuple(needed), tuple(pulls))

    def run(
        self,
        given: Given,
        walk: Walk,
        wanted: Mapping[int, Region],
        extents: Sequence[tuple[int, ...]],
        into: Mapping[int, Block | Room] = MappingProxyType({}),
    ) -> dict[int, Block]:
        """Return the wanted regions of maps, from map values that the walk's region of the input is taken from.

        Layers that one kernel can make in one pass are made so, unless one of them meets the edge of its map, where it
        must be padded: then one after another, with the same bits. A region is returned in the array that ``into`` has
        for it, where the kernel can write there; of a map that no layer looks at the kernel may fill the room that is
        there, and it is not returned.
        """
        made: dict[int, Block] = {}
        with np.errstate(all="ignore"):  # NaN and ±inf are values like others here
            for step in self.steps(wanted):
                if is_empty(walk.needed[step[0] + 1]):
                    break
                at_edge = any(pull.is_padded for place in step[1:] for pull in walk.pulls[place])
                for places in ([range(place, place + 1) for place in step]) if at_edge else [step]:
                    first, last = places[0], places[-1]
                    head, backend = self.operations[first], BACKENDS[self.choices[first].backend]
                    kernel = kernel_for(self.operations[first : last + 1], backend.name)
                    source: Block | Scattered | None = None
                    if isinstance(given, Raw) and backend.by_strips(head):
                        source = scattered(given, walk.pulls[first], head)
                    if source is None:
                        source = padded(given, walk.pulls[first], head)
                    make = walk.needed[first + 1]
                    for place in places[1:]:  # whole cells of the first, and so perhaps more than is needed
                        windows = self.operations[place].windows
                        make = tuple(window.under(interval) for window, interval in zip(windows, make, strict=True))
                    options = self._target(into, last, walk, source) if make == wanted.get(last) else {}
                    block = kernel(source, **options)
                    if self.operations[last].average:
                        block /= _real_taps(self.operations[last], make, extents[last]).astype(block.dtype)
                    given = Held(block, make)
                if not is_empty(region := wanted.get(step[-1], EMPTY)) and "room" not in options:
                    made[step[-1]] = within(block, region, make)
        return made

    def _target(self, into: Mapping[int, Block | Room], place: int, walk: Walk, source: object) -> dict[str, Any]:
        """Return what tells a kernel where to write the map of a layer, if it can write there."""
        room, backend = into.get(place), BACKENDS[self.choices[place].backend]
        if isinstance(room, Room):
            ends = place + 1 == len(self.operations) or is_empty(walk.needed[place + 2])
            if ends and isinstance(source, Scattered) and not self.operations[place].average:
                return {"room": room}
            room = room.numbers
        return {"out": room} if room is not None and backend.writes and room.dtype == np.float32 else {}


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

    @property
    def local(self) -> int:
        """How many layers from the first on are local; the next, if there is one, joins whole maps."""
        return next((n for n, layer in enumerate(self.layers) if layer.joins_all), len(self.layers))

    def bind(self, maps: tuple[str, ...], kernel: str | None = None) -> BoundStack:
        """Return the stack for an image of the named channels, with the kernel named or the best for each layer.

        Raises `StackError` where they do not fit, and `PlanError` for an unknown kernel.
        """
        operations: list[Operation] = []
        for name, layer in zip(self.names, self.layers, strict=True):
            operations.append(layer.bind(name, maps, self.features))
            maps = operations[-1].maps
            if doubled := [m for m, count in Counter(maps).items() if count > 1]:
                raise StackError(
                    f"layer '{name}': two of its maps would be called '{doubled[0]}'; rename one of the features"
                )
        return BoundStack(tuple(operations), tuple(choose(operation, kernel) for operation in operations))


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


def run_whole(stack: BoundStack, maps: NDArray[np.float32], place: int) -> NDArray[np.float32]:
    """Return the whole map of layer ``place`` (from 0) for a whole image of map values."""
    if stack.local <= place:
        local = stack.part(0, stack.local)
        joined = run_whole(local, maps, stack.local - 1) if stack.local else maps
        return run_joined(stack, stack.operations[stack.local].block(joined, stack.operations[stack.local]), place)
    extents = stack.extents(maps.shape[1:])
    wanted = {place: whole(extents[place + 1])}
    walk = stack.walk(wanted, extents)
    given = Held(maps, whole(maps.shape[1:]))
    return finished(stack.run(given, walk, wanted, extents)[place])


def run_joined(stack: BoundStack, joined: NDArray[np.float32], place: int) -> NDArray[np.float32]:
    """Return the maps (c, 1, 1) of layer ``place`` (from 0) from what the layer that joins whole maps gave."""
    first = stack.local + 1
    return run_whole(stack.part(first, place + 1), joined, place - first) if place >= first else finished(joined)


def finished(maps: Block) -> NDArray[np.float32]:
    """Return maps as they leave a stack: float32, and every NaN of the same bits."""
    done = maps.astype(np.float32, copy=False)
    survey(done)
    return done
