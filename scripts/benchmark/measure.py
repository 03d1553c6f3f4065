"""Run all contestants of a job in turn, several times; and check that they agree."""

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmark.room import TOLERANCE, Contestant, Room

PLACES = {
    "haloflow": ("haloflow", "Peer"),
    "haloflow-1-worker": ("haloflow", "Single"),
    "onnxruntime": ("onnx_alone", "Peer"),
    "dyna-zarr": ("dynazarr", "Peer"),
    "opencv": ("opencv", "Peer"),
    "torch": ("pytorch", "Peer"),
    "dask-image": ("daskimage", "Peer"),
    "cubed": ("cubed_", "Peer"),
    "scipy-fft": ("scipy_fft", "Peer"),
    "scipy-correlate": ("scipy_direct", "Peer"),
    "scipy-gaussian": ("scipy_gaussian", "Peer"),
}
"""File and class of each contestant in `benchmark.peers`; the limit has a place of its own."""

CHEAP = ("haloflow", "haloflow-1-worker", "limit", "onnxruntime", "scipy-fft", "scipy-correlate", "scipy-gaussian")
"""Who competes in the quick form: nothing beyond the packages of the tests."""

BRIEF = 5.0
"""Seconds: in a job that Haloflow does in less, each contestant runs twice in a row, and the second run counts.

After a second of idleness or somebody else's work a run of 0.2 s takes up to twice as long on a virtual machine, which
gives processors and memory back: whoever comes after a fast contestant would be ahead of who comes after a slow one.
The rule is one for all who compete in a job, so that none is just below it whose rival is just above.
"""


@dataclass
class Result:
    """What a contestant did in a job: seconds of each round, how far its answer is from Haloflow's, and remarks.

    ``margin`` output pixels at the image's border were not compared, as this contestant's differ there.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    difference: float | None = None
    margin: int = 0
    note: str = ""
    missing: bool = False
    failed: bool = False

    @property
    def ran(self) -> bool:
        """Whether it is there and can do the job."""
        return not (self.missing or self.failed)

    @property
    def agrees(self) -> bool:
        """Whether the answer is Haloflow's, or there is none to compare."""
        return self.difference is None or self.difference <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "agrees": self.agrees}


@dataclass
class Measured:
    """A job's results."""

    results: dict[str, Result]
    recompute: float
    verified: float | None
    """Haloflow's largest deviation from the float64 reference, as a part of the map's scale."""
    doubling: list[float]
    """How many times the work of one worker all did in each round, where they only counted."""


def measure(room: Room, names: list[str], rounds: int) -> Measured:
    """Run every contestant once a round; the first round warms up, is checked and is not counted.

    Haloflow comes first, as the others are compared with its output.
    """
    room.clear("truth")
    results = {name: Result(name) for name in names}
    brief = False
    entered: dict[str, Contestant] = {}
    doubling = []
    for number in range(rounds + 1):
        for name, result in results.items():
            if not result.ran:
                continue
            with _forgiven(result):
                if not number:
                    entered[name] = _enter(room, name)
                twice = brief if number else name == "haloflow"
                seconds = _timed(entered[name], 1 + twice)
                if number:
                    result.seconds.append(seconds)
                else:
                    _compare(entered[name], result)
                    brief = seconds < BRIEF if name == "haloflow" else brief
                result.note = entered[name].note
                print(f"  round {number or 'to warm up'}: {name}: {seconds:.2f} s {result.note}", flush=True)
            room.clear(name)
        if not results["haloflow"].ran:
            raise RuntimeError(f"haloflow failed in the job {room.job.name}: {results['haloflow'].note}")
        doubling.append(room.doubling())
    room.clear("truth")
    ours = entered["haloflow"]
    return Measured(results, getattr(ours, "recompute", 1.0), getattr(ours, "verified", None), doubling)


@contextmanager
def _forgiven(result: Result) -> Iterator[None]:
    """Note of a contestant that it is not there, or cannot do the job, and go on with the others."""
    try:
        yield
    except ImportError as error:
        result.missing, result.note = True, f"not installed: {error.name or error}"
    except Exception as error:  # noqa: BLE001 - whatever a peer stumbles over
        result.failed, result.note = True, f"cannot: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _enter(room: Room, name: str) -> Contestant:
    file, kind = PLACES.get(name, ("", "Peer"))
    module = importlib.import_module(f"benchmark.peers.{file}" if file else "benchmark.limit")
    contestant: Contestant = getattr(module, kind)(room)
    contestant.prepare()
    room.clear(name)
    return contestant


def _timed(contestant: Contestant, runs: int) -> float:
    """Run a contestant so many times in a row, and return the seconds of the last time."""
    seconds = 0.0
    for _ in range(runs):
        contestant.room.clear(contestant.name)
        contestant.enter()
        try:
            started = time.perf_counter()
            contestant.run()
            seconds = (time.perf_counter() - started) * contestant.scale
        finally:
            contestant.leave()
    return seconds


def _compare(contestant: Contestant, result: Result) -> None:
    """Compare everything; where that differs, all but the border, which a peer may have widened otherwise."""
    result.difference = contestant.difference(0)
    if not result.agrees:
        margin = -(-contestant.job.halo // contestant.job.stride)
        inside = contestant.difference(margin)
        if inside is not None and inside <= TOLERANCE:
            result.difference, result.margin = inside, margin
