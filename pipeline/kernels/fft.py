"""Overlap-save convolution for large features: one transform of the image serves all features.

The layer's map is cut into *cells*, a grid anchored at its first pixel; each is made from its own window of the input
(the cell and the feature's reach around it) by transforms of one fixed size. So a pixel's bits depend on the window of
its cell alone, never on the tile, task or block that asked for it::

    window    [--------------------]            N pixels: transform, multiply, transform back
    cell      [-------------]                   V = N − (span − 1) outputs are free of wrap-around, and kept
    next                    [-------------]     the next window overlaps this one by span − 1 pixels

The method: T. G. Stockham, "High-speed convolution and correlation", AFIPS 1966; R. E. Blahut, "Fast Algorithms for
Signal Processing", 2010, chapter 4. The correlation theorem: y = F⁻¹(F(x) · conj F(w)).

Transforms are in float64. That costs half as much again as float32 and spares a list of exceptions: a bright object
does not drown a dark one in the same cell, a large offset (60,000 ± 1) does not drown small contrast, and sums of whole
numbers round to the same float32 that a direct kernel gives.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import isfinite, prod

import numpy as np
import scipy  # its parts load on use
from numpy.typing import NDArray

from pipeline.geometry import Interval, Window
from pipeline.kernels.base import Backend, Kernel
from pipeline.operation import Operation

_CELLS = (64, 128, 256, 512, 1024, 2048)
"""Edges of cells: powers of two, so that cells nest in usual chunks and a task at chunk edges makes no cell twice."""

_SPECTRA = 256 * 2**20
"""The most bytes that the features' spectra may hold."""

_ORDINARY = np.float32(2**24)
"""Magnitudes above it, most often the 'no data' of float images (1e20, −3.4e38), are transformed on their own, so that
their rounding noise reaches only where they do."""

_GRAIN = -47
"""A result is rounded to 2⁻⁴⁷ … 2⁻⁴⁶ of the largest that its window could give: above the noise of the transforms
(2⁻⁵⁰), which would make a 0 a 1e-16, and far below a float32's 2⁻²⁴."""

# Seconds on one core of an AMD EPYC of the third generation, SciPy 1.17, float64, windows of 144² to 1280²: a transform
# takes 4.8 ns a sample plus what leaving the near caches costs (5.5 ns at 576², 9 ns at 1280²), a multiply-add of
# half a spectrum 1.3 ns a sample, a call 20 µs. The rule between kernels needs them only roughly.
_TRANSFORM, _FARTHER, _MULTIPLY, _CALL = 4.8e-9, 0.7 / 2**20, 1.3e-9, 2e-5

_NEAR_BEST = 1.1
"""How much dearer than the best a cell may be forecast, for being smaller."""


@dataclass(frozen=True)
class _Frame:
    """A cell in outputs, the transform's size in pixels, both (y, x), and the seconds a cell costs."""

    cell: tuple[int, int]
    size: tuple[int, int]
    seconds: float

    @property
    def price(self) -> float:
        """Seconds for an output pixel of all features."""
        return self.seconds / prod(self.cell)


@lru_cache(maxsize=256)
def _frame(windows: tuple[Window, Window], count: int, depth: int) -> _Frame | None:
    """Return the smallest frame near the least cost for ``count`` features of ``depth`` channels; None where none fits.

    It follows from the operation alone, never from the image: the frame decides the bits.
    """
    frames = []
    for cell in product(_CELLS, _CELLS):
        needs = [(v - 1) * w.stride + w.span for v, w in zip(cell, windows, strict=True)]
        size = (_length(needs[0]), _length(needs[1]))
        if _spectrum(size) * count * depth <= _SPECTRA:
            samples = prod(size)
            transform = samples * _TRANSFORM * (1 + samples * _FARTHER) + _CALL
            multiply = samples * _MULTIPLY + _CALL
            frames.append(_Frame(cell, size, (depth + count) * transform + count * depth * multiply))
    if not frames:
        return None
    best = min(frame.price for frame in frames)
    return min((f for f in frames if f.price <= _NEAR_BEST * best), key=lambda f: (prod(f.size), f.size))


@lru_cache(maxsize=1024)
def _length(need: int) -> int:
    """Return the next length of factors 2, 3 and 5 that 4 divides: odd lengths take up to twice as long.

    >>> _length(286), _length(612)
    (288, 640)
    """
    # As scipy.fft.next_fast_len has it; every plan asks, and few need the transforms themselves, which load slowly.
    quarter = -(-need // 4)
    odd: Iterable[int] = (3**i * 5**j for i in range(quarter.bit_length()) for j in range(quarter.bit_length()))
    return 4 * min(n << (-(-quarter // n) - 1).bit_length() for n in odd)


def _spectrum(size: tuple[int, int]) -> int:
    """Return the bytes of the complex128 half spectrum of real values."""
    return 16 * size[0] * (size[1] // 2 + 1)


def _frame_of(operation: Operation) -> _Frame | None:
    if operation.kind != "convolution":
        return None
    count, depth = operation.arrays["weights"].shape[:2]
    return _frame(operation.windows, count, depth)


def cost(operation: Operation) -> float:
    """Return the seconds that one core takes for an output pixel of all the layer's maps; infinite without a kernel."""
    frame = _frame_of(operation)
    return frame.price * (operation.inputs // operation.arrays["weights"].shape[1]) if frame else float("inf")


def _supports(operation: Operation) -> bool:
    return isfinite(cost(operation))


def _cell(operation: Operation) -> tuple[int, int]:
    frame = _frame_of(operation)
    return frame.cell if frame else (1, 1)


def _scratch(operation: Operation, read: int, made: int) -> int:
    del read, made  # cells are made one after another
    frame = _frame_of(operation)
    if frame is None:
        return 0
    count, depth = (int(n) for n in operation.arrays["weights"].shape[:2])
    # The features' spectra; the window, its parts and masks; its spectra, the product and what comes back; the results
    # of an odd cell and of its direct sums.
    return _spectrum(frame.size) * (count * depth + 4 * depth + 4) + 16 * count * prod(frame.cell)


def _spectra(operation: Operation, size: tuple[int, int]) -> NDArray[np.complex128]:
    """Return conj F(w) of the dilated features, (feature, channel, y, x) complex128."""
    weights = operation.arrays["weights"]
    y, x = operation.windows
    found = np.empty((*weights.shape[:2], size[0], size[1] // 2 + 1), np.complex128)
    for place in np.ndindex(weights.shape[:2]):
        spread = np.zeros(size)
        spread[: y.span : y.dilation, : x.span : x.dilation] = weights[place]
        np.conjugate(scipy.fft.rfft2(spread), out=found[place])
    return found


def _coarse(largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what rounds a float64 of at most ``largest`` to the grain by being added and taken away."""
    _, exponents = np.frexp(largest)
    coarse: NDArray[np.float64] = np.ldexp(1.5, exponents + (52 + _GRAIN))
    return coarse


_Sums = Callable[[NDArray[np.float32], NDArray[np.float32]], None]


def _summing(operation: Operation, frame: _Frame) -> Callable[[], _Sums]:
    """Return a maker of functions that put the sums over a finite window into a cell; each has its own scratch."""
    spectra = _spectra(operation, frame.size)
    count, depth = spectra.shape[:2]
    heights = np.abs(operation.arrays["weights"]).sum(axis=(2, 3))
    (rows, columns), (y, x) = frame.cell, operation.windows

    def start() -> _Sums:
        padded = np.zeros((depth, *frame.size))
        total, term = np.empty((2, *spectra.shape[2:]), np.complex128)

        def sums(window: NDArray[np.float32], made: NDArray[np.float32]) -> None:
            # Every call of a transform has the same shape, whatever the window's: how it groups rows into vectors, and
            # so perhaps its rounding, then depends on nothing.
            height, width = window.shape[1:]
            padded[:, :height, :width] = window
            padded[:, height:] = 0
            padded[:, :height, width:] = 0
            transformed = scipy.fft.rfft2(padded, workers=1)
            peaks = np.maximum(window.max(axis=(1, 2)), -window.min(axis=(1, 2))).astype(np.float64)
            coarse = _coarse((heights * peaks).sum(axis=1))
            for feature in range(count):
                np.multiply(transformed[0], spectra[feature, 0], out=total)
                for channel in range(1, depth):
                    np.multiply(transformed[channel], spectra[feature, channel], out=term)
                    np.add(total, term, out=total)
                down = scipy.fft.ifft(total, axis=0, overwrite_x=True, workers=1)[: rows * y.stride : y.stride]
                back = scipy.fft.irfft(down, frame.size[1], axis=1, workers=1)[:, : columns * x.stride : x.stride]
                kept = back[: made.shape[1], : made.shape[2]]
                kept += coarse[feature]
                kept -= coarse[feature]
                made[feature] = kept

        return sums

    return start


def _filling(operation: Operation) -> Callable[[NDArray[np.float32], NDArray[np.float32], _Sums], None]:
    """Return the function that makes one cell (feature, y, x) from its window (channel, y, x)."""
    weights = operation.arrays["weights"]
    coarse = _coarse(np.abs(weights).sum(axis=(2, 3)))
    volumes = weights.sum(axis=(2, 3)) + coarse - coarse  # 0 for a feature in balance, not the noise of its sum
    divisor = np.float32(operation.options["divisor"])
    bias = operation.arrays["bias"].astype(np.float32)[:, None, None]

    def fill(window: NDArray[np.float32], made: NDArray[np.float32], sums: _Sums) -> None:
        low, high = window.min(axis=(1, 2)), window.max(axis=(1, 2))
        finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
        if finite and np.array_equal(low, high):
            # Empty background: the noise of a transform differs from place to place. −0 + 0 is 0, in any order.
            made[:] = (volumes * (low.astype(np.float64) + 0.0)).sum(axis=1)[:, None, None]
        elif finite and max(-low.min(), high.max()) <= _ORDINARY:
            sums(window, made)
        else:
            _sum_apart(window, made, operation, sums)
        if divisor != 1:
            made /= divisor
        if bias.any():
            made += bias
        if not finite:
            _set_special(window, made, operation)

    return fill


def _build(operations: tuple[Operation, ...]) -> Kernel:
    (operation,) = operations
    frame = _frame_of(operation)
    if frame is None:
        raise ValueError(f"no FFT kernel for '{operation.name}'")
    count, depth = operation.arrays["weights"].shape[:2]
    start, fill = _summing(operation, frame), _filling(operation)

    def kernel(block: NDArray[np.float32]) -> NDArray[np.float32]:
        rows, columns = ((n - w.span) // w.stride + 1 for n, w in zip(block.shape[1:], operation.windows, strict=True))
        matches = np.empty((len(block) // depth, count, rows, columns), np.float32)
        sums = start()
        for top, left in product(range(0, rows, frame.cell[0]), range(0, columns, frame.cell[1])):
            made = (Interval(top, min(rows, top + frame.cell[0])), Interval(left, min(columns, left + frame.cell[1])))
            under = _under(operation, made)
            for group, maps in enumerate(matches):
                window = block[group * depth : (group + 1) * depth, *under]
                fill(window, maps[:, made[0].start : made[0].stop, made[1].start : made[1].stop], sums)
        return matches.reshape(-1, rows, columns)

    return kernel


def _under(operation: Operation, made: tuple[Interval, Interval]) -> tuple[slice, slice]:
    """Return the pixels of a padded block under the outputs ``made``."""
    y, x = operation.windows
    return (
        slice(made[0].start * y.stride, (made[0].stop - 1) * y.stride + y.span),
        slice(made[1].start * x.stride, (made[1].stop - 1) * x.stride + x.span),
    )


def _sum_apart(window: NDArray[np.float32], made: NDArray[np.float32], operation: Operation, sums: _Sums) -> None:
    """Sum a window with extraordinary values: the finite ones among them apart, NaN and infinity left out as 0."""
    size = np.abs(window)
    made[:] = 0
    if (plain := size <= _ORDINARY).any():  # mostly not where there is no data
        sums(np.where(plain, window, np.float32(0)), made)
    vast = (size > _ORDINARY) & np.isfinite(size)
    if vast.any():
        beside = np.empty_like(made)
        sums(np.where(vast, window, np.float32(0)), beside)
        np.add(made, beside, out=made, where=_reached(vast, operation))


def _set_special(window: NDArray[np.float32], made: NDArray[np.float32], operation: Operation) -> None:
    """Give the results that NaN or infinity reaches what a direct kernel gives."""
    reached = _reached(np.isinf(window), operation)
    if reached.any():
        box = [np.flatnonzero(reached.any(axis=axis)) for axis in (1, 0)]
        rows, columns = (Interval(int(found[0]), int(found[-1]) + 1) for found in box)
        direct = operation.block(window[:, *_under(operation, (rows, columns))], operation)
        inner = made[:, rows.start : rows.stop, columns.start : columns.stop]
        np.copyto(inner, direct, where=reached[rows.start : rows.stop, columns.start : columns.stop])
    made[:, _reached(np.isnan(window), operation)] = np.nan


def _reached(marked: NDArray[np.bool_], operation: Operation) -> NDArray[np.bool_]:
    """Return which outputs (y, x) have a marked pixel of the window (channel, y, x) under one of their taps."""
    found: NDArray[np.bool_] = np.logical_or.reduce(marked)
    for window in operation.windows:  # y, then x, by turning the axes twice
        hit = np.zeros_like(found[window.taps(0, len(found))])
        for tap in range(window.size):
            hit |= found[window.taps(tap, len(found))]
        found = hit.T
    return found


BACKEND = Backend("fft", supports=_supports, build=_build, cost=cost, scratch=_scratch, cell=_cell, steady=True)
