"""Integers only: the one home of halo arithmetic.

Every layer sees each axis through one 1-D `Window`; n dimensions are a tuple of them. Positions are pixels in a map's
own global frame, intervals are half-open. Ceiling division is ``-(-a // b)``, never through floats.

A 3-wide window of stride 2 padded by one, over a map of 6 pixels, for the outputs 1 and 2::

    position   -1  0  1  2  3  4  5  6
    map             [  .  .  .  .  .  ]
    output 0    (--------)
    output 1          (--------)
    output 2                (--------)
    reach of [1, 3) = [1, 6); all of it is real, so nothing is padded
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod


@dataclass(frozen=True, slots=True)
class Interval:
    """The pixels ``start, …, stop - 1`` of one axis; empty when ``stop <= start``."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"

    def hull(self, other: "Interval") -> "Interval":
        """Return the smallest interval that holds both; an empty one counts for nothing.

        >>> Interval(2, 4).hull(Interval(7, 9))
        Interval(start=2, stop=9)
        >>> Interval(2, 4).hull(Interval(9, 9))
        Interval(start=2, stop=4)
        """
        if not len(other):
            return self
        if not len(self):
            return other
        return Interval(min(self.start, other.start), max(self.stop, other.stop))

    def intersect(self, other: "Interval") -> "Interval":
        """Return the pixels in both, possibly none."""
        return Interval(max(self.start, other.start), min(self.stop, other.stop))

    def moved(self, by: int) -> "Interval":
        """Return this interval so many pixels further on."""
        return Interval(self.start + by, self.stop + by)

    def within(self, frame: "Interval") -> slice:
        """Return this interval as a slice of an array whose first pixel is ``frame.start``."""
        return slice(self.start - frame.start, self.stop - frame.start)


Region = tuple[Interval, ...]
"""One interval per axis."""


def whole(extents: Iterable[int]) -> Region:
    """Return the region of a whole map."""
    return tuple(Interval(0, extent) for extent in extents)


def is_empty(region: Region) -> bool:
    """Say whether a region holds no pixel."""
    return not all(map(len, region))


def pixels(region: Region) -> int:
    """Return the number of pixels of a region."""
    return prod(map(len, region))


def hull(a: Region, b: Region) -> Region:
    """Return the smallest region that holds both; a region with an empty axis counts for nothing."""
    if is_empty(b):
        return a
    if is_empty(a):
        return b
    return tuple(i.hull(j) for i, j in zip(a, b, strict=True))


def intersect(a: Region, b: Region) -> Region:
    """Return the pixels in both regions, possibly none."""
    return tuple(map(Interval.intersect, a, b))


def cells(region: Region, cell: Iterable[int], extents: Iterable[int]) -> Region:
    """Return the whole cells of a grid from pixel 0 on that a region touches, cut at the map's end.

    >>> cells((Interval(3, 9),), (4,), (10,)), cells((Interval(3, 4),), (4,), (10,))
    ((Interval(start=0, stop=10),), (Interval(start=0, stop=4),))
    """
    return tuple(
        i if c == 1 else Interval(i.start // c * c, min(-(-i.stop // c) * c, n))
        for i, c, n in zip(region, cell, extents, strict=True)
    )


class Boundary(StrEnum):
    """What stands beyond the true edge of a map."""

    CONSTANT = "constant"
    REFLECT = "reflect"
    NEAREST = "nearest"

    def source(self, position: int, extent: int) -> int | None:
        """Return which real pixel stands at ``position``, or None where the fill does.

        ``reflect`` does not repeat the edge pixel and goes on reflecting when the pad is wider than the map.

        >>> [Boundary.REFLECT.source(p, 4) for p in range(-4, 8)]
        [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
        >>> [Boundary.NEAREST.source(p, 4) for p in (-2, 0, 5)]
        [0, 0, 3]
        >>> [Boundary.CONSTANT.source(p, 4) for p in (-2, 0, 5)]
        [None, 0, None]
        """
        if 0 <= position < extent:
            return position
        match self:
            case Boundary.CONSTANT:
                return None
            case Boundary.NEAREST:
                return 0 if position < 0 else extent - 1
            case Boundary.REFLECT:
                if extent == 1:
                    return 0
                folded = position % (2 * (extent - 1))
                return min(folded, 2 * (extent - 1) - folded)

    def cover(self, reach: Interval, extent: int) -> Interval:
        """Return the real pixels needed to fill ``reach`` of a map of ``extent`` pixels: an interval of the map.

        What is reflected may lie further in than the reach.

        >>> Boundary.REFLECT.cover(Interval(-3, 1), 10), Boundary.NEAREST.cover(Interval(-3, 1), 10)
        (Interval(start=0, stop=4), Interval(start=0, stop=1))
        """
        inside = reach.intersect(Interval(0, extent))
        outside = [Interval(reach.start, min(0, reach.stop)), Interval(max(extent, reach.start), reach.stop)]
        if self is Boundary.CONSTANT or not any(len(part) for part in outside):
            return inside
        if self is Boundary.NEAREST:  # the ends say it
            positions = [p for part in outside if len(part) for p in (part.start, part.stop - 1)]
        elif max(len(part) for part in outside) >= 2 * extent:  # a full period holds every pixel
            return Interval(0, extent)
        else:
            positions = [p for part in outside for p in range(part.start, part.stop)]
        sources = [s for p in positions if (s := self.source(p, extent)) is not None]
        return inside.hull(Interval(min(sources), max(sources) + 1))


@dataclass(frozen=True, slots=True)
class Pull:
    """What one axis of a block needs: the real pixels to read and the reach they are padded to."""

    read: Interval
    reach: Interval
    extent: int

    @property
    def is_padded(self) -> bool:
        """Whether the reach goes beyond the true edge of the map."""
        return self.reach.start < 0 or self.reach.stop > self.extent

    def padding(self, boundary: Boundary) -> list[tuple[int, int | None]]:
        """Return the pixels of the reach that the map does not have, each with the one that stands for it.

        That is a pixel that is read, or None for the fill.

        >>> Window.same(3).pull(Interval(0, 10), extent=10).padding(Boundary.NEAREST)
        [(-1, 0), (10, 9)]
        """
        before = range(self.reach.start, min(0, self.reach.stop))
        after = range(max(self.extent, self.reach.start), self.reach.stop)
        return [(p, boundary.source(p, self.extent)) for p in (*before, *after)]


@dataclass(frozen=True, slots=True)
class Window:
    """How an output pixel of one axis depends on the input: ``size`` taps, ``dilation`` apart, moved by ``stride``.

    ``pad_lo`` and ``pad_hi`` pixels are added before and after the map. With ``partial`` a last window that the edge
    cuts counts too, as long as it starts inside the map (pooling's way); the two ways are not combined.
    """

    size: int = 1
    stride: int = 1
    dilation: int = 1
    pad_lo: int = 0
    pad_hi: int = 0
    partial: bool = False

    def __post_init__(self) -> None:
        if min(self.size, self.stride, self.dilation) < 1 or min(self.pad_lo, self.pad_hi) < 0:
            raise ValueError(f"a window needs size, stride and dilation of at least 1 and no negative pad: {self}")
        if self.partial and (self.pad_lo or self.pad_hi):
            raise ValueError(f"a window that counts partly takes no pad: {self}")

    @property
    def span(self) -> int:
        """The pixels from the first tap to the last, both counted: d(k − 1) + 1."""
        return self.dilation * (self.size - 1) + 1

    @classmethod
    def same(cls, size: int, stride: int = 1, dilation: int = 1) -> "Window":
        """Return the window padded by d(k − 1) in all, the smaller half before, so that at stride 1 the extent stays.

        >>> Window.same(4)
        Window(size=4, stride=1, dilation=1, pad_lo=1, pad_hi=2, partial=False)
        """
        pad = dilation * (size - 1)
        return cls(size, stride, dilation, pad // 2, pad - pad // 2)

    def output_extent(self, extent: int) -> int:
        """Return how many outputs a map of ``extent`` pixels gives; 0 where no window fits.

        Without ``partial`` ⌈(n + pads − d(k − 1)) / s⌉. With it ⌈(n − span) / s⌉ + 1, at least 1, and no window
        starting beyond the edge.

        >>> Window(3, stride=2).output_extent(8), Window(3, stride=2, partial=True).output_extent(8)
        (3, 4)
        >>> Window(1, stride=3, partial=True).output_extent(5)
        2
        """
        if self.partial and extent > 0:
            counted = -(-(extent - self.span) // self.stride) + 1
            return max(1, min(counted, -(-extent // self.stride)))
        fitting = extent + self.pad_lo + self.pad_hi - (self.span - 1)
        return max(0, -(-fitting // self.stride)) if extent > 0 else 0

    def taps(self, tap: int, length: int) -> slice:
        """Return where tap number ``tap`` of every window lies in a block of ``length`` pixels already padded.

        >>> Window(3, stride=2, dilation=2).taps(1, 9)
        slice(2, 7, 2)
        """
        start = tap * self.dilation
        return slice(start, start + (length - self.span) // self.stride * self.stride + 1, self.stride)

    def reach(self, output: Interval) -> Interval:
        """Return the pixels under the windows of ``output``, those beyond the map's edges included.

        >>> Window(3, stride=2, pad_lo=1, pad_hi=1).reach(Interval(1, 3))
        Interval(start=1, stop=6)
        """
        start = output.start * self.stride - self.pad_lo
        return Interval(start, (output.stop - 1) * self.stride - self.pad_lo + self.span)

    def under(self, pixels: Interval) -> Interval:
        """Return the outputs whose windows lie wholly in an interval of pixels: what ``reach`` gives, back again.

        >>> Window(3, stride=2, pad_lo=1, pad_hi=1).under(Interval(1, 6))
        Interval(start=1, stop=3)
        """
        start = -(-(pixels.start + self.pad_lo) // self.stride)
        return Interval(start, max(start, (pixels.stop + self.pad_lo - self.span) // self.stride + 1))

    def pull(self, output: Interval, extent: int, boundary: Boundary = Boundary.CONSTANT) -> Pull:
        """Return what the outputs ``output`` need of a map of ``extent`` pixels: what to read and what to pad.

        >>> Window.same(3).pull(Interval(0, 4), extent=10)
        Pull(read=Interval(start=0, stop=5), reach=Interval(start=-1, stop=5), extent=10)
        """
        reach = self.reach(output)
        inside = reach.start >= 0 and reach.stop <= extent
        return Pull(reach if inside else boundary.cover(reach, extent), reach, extent)

    def real_taps(self, output: Interval, extent: int) -> list[int]:
        """Return for each output how many of its taps lie on real pixels of the map."""
        first = (o * self.stride - self.pad_lo for o in range(output.start, output.stop))
        return [sum(0 <= f + self.dilation * t < extent for t in range(self.size)) for f in first]


def compose(windows: Sequence[Window]) -> Window:
    """Return the one window of a whole stack along an axis: its size is the receptive field, its stride the step.

    The recursion r ← r + (span − 1)·j, j ← j·s of A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of
    Convolutional Neural Networks", Distill 2019.

    >>> compose([Window(3), Window(2, stride=2), Window(3)])
    Window(size=8, stride=2, dilation=1, pad_lo=0, pad_hi=0, partial=False)
    """
    size, stride, lo, hi = 1, 1, 0, 0
    for window in windows:
        size += (window.span - 1) * stride
        lo += window.pad_lo * stride
        hi += window.pad_hi * stride
        stride *= window.stride
    return Window(size, stride, pad_lo=lo, pad_hi=hi)
