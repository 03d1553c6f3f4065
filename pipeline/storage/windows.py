"""What viewers should show of a map: the range of its values, and where nearly all of them lie."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled.loops import survey
from pipeline.geometry import Interval, Region, whole
from pipeline.storage.maps import MapArray
from pipeline.storage.metadata import Window

SAMPLES = 32
"""Pixels along an axis of a map that are looked at, at the most, evenly spread."""

PLANES = 16
"""Planes that pixels are looked at of, at the most."""

SHOWN = (1, 99)
"""The percentiles of these pixels that a channel is shown between, so that a few stray ones do not make it dark."""


def sampled(extents: tuple[int, int], region: Region) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which rows and columns of a region of a map are looked at, counted from its first.

    They follow from the map's extents alone, so that no chunk and no task changes what a viewer shows.

    >>> [part.tolist() for part in sampled((100, 3), (Interval(0, 10), Interval(1, 3)))]
    [[2, 6], [0, 1]]
    """
    rows, columns = (_places(e, i) for e, i in zip(extents, region, strict=True))
    return rows, columns


def _places(extent: int, interval: Interval) -> NDArray[np.intp]:
    step = -(-extent // SAMPLES)
    first = step // 2 + -(-max(0, interval.start - step // 2) // step) * step
    return np.arange(first, interval.stop, step) - interval.start


def looked_at(plane: int, planes: int) -> bool:
    """Say whether pixels of a plane are looked at: of many planes some are, evenly spread.

    >>> [plane for plane in range(100) if looked_at(plane, 100)][:3]
    [3, 10, 17]
    """
    step = -(-planes // PLANES)
    return plane % step == step // 2


@dataclass(frozen=True)
class Sight:
    """What a task saw of a kept map: the range of its numbers, (inf, −inf) where there are none, and sampled pixels."""

    low: float
    high: float
    samples: NDArray[np.float32]
    """(c, n): so many pixels of each channel."""


class Sights:
    """What all tasks saw of all maps, in any order; what it holds does not grow with the number of tasks."""

    def __init__(self) -> None:
        self._ranges: dict[MapArray, tuple[float, float]] = {}
        self._samples: defaultdict[MapArray, list[NDArray[np.float32]]] = defaultdict(list)

    def add(self, array: MapArray, sight: Sight) -> None:
        """Take what a task saw."""
        low, high = self._ranges.get(array, (sight.low, sight.high))
        self._ranges[array] = min(low, sight.low), max(high, sight.high)
        if sight.samples.size:
            self._samples[array].append(sight.samples)

    def fill(self, array: MapArray, values: NDArray[np.float32]) -> None:
        """Take what no task saw of a map: pixels of these values (c,), from which all that is sampled comes, too."""
        planes = sum(looked_at(plane, array.planes) for plane in range(array.planes))
        rows, columns = sampled(array.extents, whole(array.extents))
        left = planes * len(rows) * len(columns) - sum(samples.shape[1] for samples in self._samples[array])
        low, high = survey(values[:, None, None])
        self.add(array, Sight(float(low), float(high), np.repeat(values[:, None], max(0, left), axis=1)))

    def windows(self, array: MapArray) -> tuple[Window, ...]:
        """Return what to show of each channel of a map, in map values."""
        low, high = self._ranges.get(array, (0.0, 1.0))
        none = np.empty((len(array.channels), 0), np.float32)
        shown = _shown(np.concatenate([none, *self._samples[array]], axis=1))
        return tuple(Window.of(low, high, *ends) for ends in shown)


def _shown(samples: NDArray[np.float32]) -> list[list[float]]:
    """Return the percentiles of each channel's finite pixels, none where it has no such pixel."""
    finite = [np.sort(channel[np.isfinite(channel)]).astype(np.float64) for channel in samples]
    return [[_percentile(numbers, percent) for percent in SHOWN] if numbers.size else [] for numbers in finite]


def _percentile(numbers: NDArray[np.float64], percent: int) -> float:
    """Return a percentile of sorted numbers, the line between its neighbours; NumPy's own takes twenty times as long.

    >>> _percentile(np.array([0.0, 1.0, 3.0]), 75)
    2.0
    """
    place = percent / 100 * (len(numbers) - 1)
    below = int(place)
    low, high = numbers[below], numbers[min(below + 1, len(numbers) - 1)]
    return float(low + (high - low) * (place - below))
