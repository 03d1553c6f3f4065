"""Where a job is run: its files and its clusters; and what a contestant is."""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from distributed import Client

from benchmark import threads
from benchmark.data import chunk_of, make_features, make_image
from benchmark.jobs import Job
from pipeline.storage.codecs import Codec

TOLERANCE = 1e-4
"""How far answers may lie apart, as a part of the output's greatest magnitude: float32 sums in other orders."""


@dataclass
class Room:
    """A job made ready: the image and the features are there, and clusters of two workers and of one are open."""

    job: Job
    side: int
    folder: Path
    client: Client
    single: Client
    image: Path = field(init=False)
    features: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.side //= self.job.share
        self.image = make_image(self.folder, self.side, self.job.channels)
        self.features = make_features(self.folder, self.job)

    @property
    def chunk(self) -> int:
        """The edge of an input chunk."""
        return chunk_of(self.side)

    @property
    def out_chunk(self) -> int:
        """The edge of an output chunk; a chunk holds one map."""
        return min(self.chunk // self.job.shrink, self.side // self.job.stride)

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """The shape of the output."""
        return self.job.features, *(self.side // self.job.stride,) * 2

    @property
    def unit(self) -> int:
        """Input pixels a side of an output chunk: blocks of this edge, or multiples, write whole chunks."""
        return self.out_chunk * self.job.stride

    @property
    def workers(self) -> list[str]:
        """The addresses of the workers."""
        return list(self.client.scheduler_info()["workers"])

    def output(self, name: str) -> Path:
        """Return where a contestant writes."""
        return self.folder / "out" / f"{name}.zarr"

    @property
    def truth(self) -> Any:
        """Haloflow's output, which all others are compared with."""
        return self.maps("truth")

    def maps(self, name: str) -> Any:
        """Return the array in an output of Haloflow's."""
        return zarr.open_array(self.output(name) / self.image.stem / _last(self.job) / "0", mode="r")

    def config(self, name: str) -> dict[str, Any]:
        """Return Haloflow's config of the job."""
        return self.job.config(str(self.image), self.features, str(self.output(name)), self.out_chunk)

    def create(self, name: str) -> Any:
        """Return a contestant's empty output: the shape, chunks, type and codec of Haloflow's."""
        return zarr.create_array(
            self.output(name),
            shape=self.out_shape,
            chunks=(1, self.out_chunk, self.out_chunk),
            dtype=self.job.dtype,
            compressors=Codec("lz4").made(),
            fill_value=0,
        )

    def doubling(self) -> float:
        """Count on one worker and then on all: how many times the work of one all do, where nothing is shared.

        No program is faster than that on more workers, and on a virtual machine it need not be their number.
        """
        first, *_ = self.workers
        (alone,) = self.client.run(_count, workers=[first]).values()
        return float(len(self.workers) * alone / max(self.client.run(_count).values()))

    def clear(self, name: str) -> None:
        """Remove a contestant's output, outside of all timing."""
        shutil.rmtree(self.output(name), ignore_errors=True)


def _count() -> float:
    """Return the seconds that it takes to count to a number."""
    started = time.perf_counter()
    for _ in range(4_000_000):
        pass
    return time.perf_counter() - started


def _last(job: Job) -> str:
    """Return the name that Haloflow gives the last layer."""
    layer = job.stack[-1]
    kind = layer if isinstance(layer, str) else "convolution"
    same = sum((other if isinstance(other, str) else "convolution") == kind for other in job.stack)
    return kind if same == 1 else f"{kind}_{same}"


class Contestant:
    """One way to do a job. `prepare` is not timed; `run` is, from nothing to the complete output.

    A contestant that measures only a part of the work sets ``scale`` to the whole over the part, and says so in
    ``note``.
    """

    name: ClassVar[str]
    zarr_threads: int | None = None
    """Threads that zarr may use in a worker; None leaves zarr as it is."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.job = room.job
        self.note = ""
        self.scale = 1.0

    def prepare(self) -> None:
        """Make ready what is no part of the work."""

    def enter(self) -> None:
        """Set the workers up for a run, outside of its timing."""
        if self.zarr_threads:
            self.room.client.run(threads.lend, self.zarr_threads)

    def leave(self) -> None:
        """Leave the workers as they were."""
        if self.zarr_threads:
            self.room.client.run(threads.give_back)

    def run(self) -> None:
        """Do the job."""
        raise NotImplementedError

    def difference(self, margin: int) -> float | None:
        """Return how far the answer is from Haloflow's, as a part of the greatest magnitude; None if there is none.

        ``margin`` output pixels at the image's border are left out.
        """
        found = zarr.open_array(self.room.output(self.name), mode="r")
        return difference(self.room.truth, found, margin)


def difference(truth: Any, found: Any, margin: int = 0) -> float:
    """Return the greatest difference of two stacks of maps, as a part of the greatest magnitude."""
    if truth.shape != found.shape:
        return float("inf")
    inner = slice(margin, truth.shape[-1] - margin)
    off = size = 0.0
    for number in range(truth.shape[0]):
        expected, given = truth[number, inner, inner], found[number, inner, inner]
        off = max(off, float(np.abs(given - expected).max()))
        size = max(size, float(np.abs(expected).max()))
    return off / size
