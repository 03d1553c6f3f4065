"""Run what is large in number: ten thousand small images, a million tasks, an image that is nearly all empty.

python scripts/large.py images [--count 10000]   X and O of 64 × 64 pixels in one batch
python scripts/large.py tasks                    10^6 tasks that do nothing: what is left is the run's own
python scripts/large.py sparse                   10^12 pixels, of whose chunks 0.01 % are stored

Each works in a temporary folder, or in one in --folder, runs ``haloflow run`` with two workers as a process of its own,
watches its events and the resident memory of the client, which is the scheduler, too, and of the workers, and ends with
1 where the figures are not what they must be.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import zarr

from pipeline.cli import main as haloflow
from pipeline.execute import cluster
from pipeline.execute.task import Done
from pipeline.planning import ImagePlan
from pipeline.storage.windows import Sight

IDLE = "HALOFLOW_SCRIPT_IDLE"
"""The environment variable that has tasks do nothing."""

FEATURES = """
features:
  falling: {rows: [[2, -1, -1], [-1, 2, -1], [-1, -1, 2]]}
  rising: {rows: [[-1, -1, 2], [-1, 2, -1], [2, -1, -1]]}
  spot: {rows: [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]}
layers:
  - {type: convolution, name: match, features: [falling, rising, spot], match: mean}
  - {type: relu}
  - {type: pool, window: 2, stride: 2}
"""


@dataclass
class Watched:
    """What was seen of a run: seconds from the command's start, and bytes of resident memory at each event."""

    started: float = 0.0
    """When the run was planned and had its workers."""
    first: float = math.inf
    """When the first task had ended."""
    seconds: float = 0.0
    """From the first task's end to the last one's."""
    client: list[int] = field(default_factory=list)
    workers: int = 0
    """The most that one held."""
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def growth(self) -> float:
        """What the client held at the end to what it held after a quarter of the run."""
        return self.client[-1] / self.client[len(self.client) // 4]

    def told(self, what: str) -> str:
        """Return it in a line."""
        return (
            f"{what} in {self.seconds:.1f} s; the first task had ended {self.first:.1f} s after the command began, "
            f"{self.first - self.started:.1f} s after the run was planned and had its workers; client "
            f"and scheduler held {max(self.client) / 1e6:.0f} MB, at the end {self.growth:.2f} times as much as after "
            f"a quarter; a worker {self.workers / 1e6:.0f} MB"
        )


def watch(config: Path, **environment: str) -> Watched:
    """Run a config with two workers, and watch it."""
    program = [__file__] if environment else ["-m", "pipeline.cli"]
    words = [sys.executable, *program, "run", config.name, "--workers", "2", "--json", "--overwrite"]
    began, found = time.monotonic(), Watched()
    everywhere = os.environ | environment
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=config.parent, env=everywhere) as child:
        client = psutil.Process(child.pid)
        for line in child.stdout or ():
            event = json.loads(line)
            if event["event"] == "progress":
                found.first = min(found.first, time.monotonic() - began)
                found.seconds = time.monotonic() - began - found.first
                found.client.append(client.memory_info().rss)
                inside = [one.memory_info().rss for one in client.children(recursive=True)]
                found.workers = max(found.workers, *inside, 0)
            elif event["event"] == "started":
                found.started = time.monotonic() - began
            elif event["event"] == "finished":
                found.report = event
    if child.returncode:
        sys.exit(f"the run ended with {child.returncode}")
    return found


def images(folder: Path, count: int) -> list[tuple[bool, str]]:
    """Match strokes in small drawings."""
    draw = [sys.executable, str(Path(__file__).with_name("make_xo.py")), "letters", str(folder / "letters")]
    subprocess.run([*draw, "--count", str(count // 2), "--sides", "64", "64"], check=True)
    config = folder / "images.yaml"
    config.write_text(f'input: {{images: "letters/*.zarr"}}\n{FEATURES}\noutput: {{store: maps.zarr}}\n')
    found = watch(config)
    rate = found.report["images"] / found.report["seconds"]
    print(found.told(f"{found.report['images']} images, {rate:.0f} a second,"))
    return [
        (rate >= 300, "300 images a second"),
        (found.first <= 5, "a first result within 5 s"),
        (found.growth <= 1.1, "flat memory"),
    ]


def tasks(folder: Path) -> list[tuple[bool, str]]:
    """Run an image of a million tasks, each of which returns at once."""
    # Where a format says nothing of what is not stored, all counts as stored.
    shape, chunk = (2**23, 2**20), (2**12, 2**11)
    zarr.create_array(folder / "i.zarr", shape=shape, chunks=chunk, dtype="uint8", fill_value=None, zarr_format=2)
    config = folder / "tasks.yaml"
    output = "output: {store: maps.zarr, chunks: [2048, 1024], dtype: int8, range: [-1, 1]}"
    config.write_text(f"input: {{images: i.zarr}}\n{FEATURES}\n{output}\n")
    found = watch(config, **{IDLE: "1"})
    print(found.told(f"{found.report['tasks']} tasks that do nothing"))
    return [
        (found.report["tasks"] >= 10**6, "a million tasks"),
        (found.first - found.started <= 2, "a first task within 2 s"),
        (found.growth <= 1.1, "flat memory"),
    ]


def sparse(folder: Path) -> list[tuple[bool, str]]:
    """Run an image of a million by a million pixels, of whose million chunks a hundred are stored."""
    array = zarr.create_array(folder / "i.zarr", shape=(10**6, 10**6), chunks=(1000, 1000), dtype="uint8", fill_value=0)
    rng = np.random.default_rng(1)
    for row, column in rng.integers(0, 1000, (100, 2)) * 1000:
        array[row : row + 1000, column : column + 1000] = rng.integers(0, 256, (1000, 1000), np.uint8)
    config = folder / "sparse.yaml"
    config.write_text(f"input: {{images: i.zarr, black: 0, white: 255}}\n{FEATURES}\noutput: {{store: maps.zarr}}\n")
    found = watch(config)
    print(found.told(f"{found.report['pixels']:.0e} pixels, {found.report['tasks']} tasks,"))
    return [
        (found.first + found.seconds < 120, "two minutes"),
        (max(found.client) < 300e6, "300 MB"),
    ]


def nothing(plan: ImagePlan, image: int, block: int, *_: object) -> Done:
    """Do nothing, instead of a task, and tell of it as a task does."""
    sights = tuple(Sight(0.0, 1.0, np.empty((len(k.array.channels), 0), np.float32)) for k in plan.kept)
    return Done(image, block, 0.0, 0, 0, sights)


def main() -> None:
    """Make the data, run, print, and judge."""
    parser = argparse.ArgumentParser(description="Run what is large in number.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (images, tasks, sparse):
        one = verbs.add_parser(verb.__name__, help=verb.__doc__)
        one.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    verbs.choices["images"].add_argument("--count", type=int, default=10_000)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="haloflow-large-", dir=told.folder) as folder:
        if told.verb == "images":
            judged = images(Path(folder), told.count)
        else:
            judged = {"tasks": tasks, "sparse": sparse}[told.verb](Path(folder))
    missed = [what for good, what in judged if not good]
    sys.exit(f"not reached: {', '.join(missed)}" if missed else 0)


if os.environ.get(IDLE):  # workers begin with this file, too
    patch.object(cluster, "attempt", nothing).start()

if __name__ == "__main__":
    haloflow() if sys.argv[1:2] == ["run"] else main()
