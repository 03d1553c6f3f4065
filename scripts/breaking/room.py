"""Where runs are broken: an image, a config, the store of a run that nothing disturbed, and what differs from it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import yaml
import zarr

import pipeline

# Tasks of one write unit each, so that there are many to break, and levels that workers make, however small.
SMALL = (
    "from pipeline import planner; from pipeline.execute import pyramids; planner.TASK_PIXELS = pyramids.SMALL = 0; "
    "from pipeline.cli import main; main()"
)

ENDS = 60.0
"""Seconds within which a command must end once it is broken, and every process of it must be gone."""

GROWS = 120.0
"""Seconds within which a store grows to what somebody waits for, however slow the machine is."""

OURS = ("_haloflow/records/", "_haloflow/lock/", "_haloflow/run.json")
"""What a store holds besides its answers, which tells of the runs and differs between them."""


@dataclass
class Room:
    """A folder with an image of so many pixels a side, and a store made of it in peace.

    The stack is wide, so that a task of 64² input pixels takes some time.
    """

    folder: Path
    side: int
    maps: int = 32
    whole: dict[str, bytes] = field(init=False)
    files: int = field(init=False)
    """Of the maps' data, all levels: a write unit has one for each channel."""
    channels: int = 4

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(3)
        pixels = rng.integers(1, 256, (self.side, self.side)).astype(np.uint8)
        zarr.create_array(self.folder / "image.zarr", data=pixels, chunks=(64, 64), overwrite=True)
        first = {f"first{n}": rng.normal(size=(7, 7)) for n in range(self.maps)}
        second = {f"second{n}": rng.normal(size=(self.maps, 7, 7)) for n in range(self.channels)}
        config = {
            "input": {"images": "image.zarr"},
            "features": {name: {"rows": rows.tolist()} for name, rows in {**first, **second}.items()},
            "layers": [
                {"type": "convolution", "features": list(first)},
                {"type": "relu"},
                {"type": "convolution", "features": list(second)},
                {"type": "pool", "window": 2, "stride": 2},
            ],
            "output": {"store": "maps.zarr", "chunks": 32, "dtype": "float16", "pyramid": "mean"},
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        with chdir(self.folder), patch("pipeline.planner.TASK_PIXELS", 0):
            made = pipeline.run(pipeline.plan(pipeline.load("config.yaml", ["output.store=peace.zarr"])), "serial")
        if not made.complete:
            sys.exit(f"a run that nothing disturbs failed: {made}")
        self.whole = contents(self.folder / "peace.zarr")
        self.files = sum("/c/" in key for key in self.whole)

    def start(self, store: str, *words: str, before: tuple[str, ...] = ()) -> "Broken":
        """Start a run into a store, in a group of processes of its own."""
        command = [*before, sys.executable, "-c", SMALL, "run", "config.yaml", "--quiet"]
        return Broken([*command, "--set", f"output.store={store}", *words], self.folder, self.folder / store)

    def run(self, store: str, *words: str, before: tuple[str, ...] = ()) -> "Ended":
        """Run into a store to the end."""
        return self.start(store, *words, before=before).end(600)

    def wrong(self, store: str) -> list[str]:
        """Return which files of a whole store are not those of the run in peace: other bytes, or not there."""
        found = contents(self.folder / store)
        return [key for key, data in self.whole.items() if found.get(key) != data]

    def litter(self, store: str) -> list[str]:
        """Return which files a store has that the run in peace has not."""
        return sorted(contents(self.folder / store).keys() - self.whole.keys())


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (below 0 a signal's), what it said, and the processes it left behind."""

    code: int
    told: str
    orphans: int

    def __bool__(self) -> bool:
        return self.code != 0


class Broken:
    """A command under way, to be broken."""

    def __init__(self, words: list[str], folder: Path, store: Path) -> None:
        self.store = store
        self._log = (folder / f"{store.name}.log").open("w+")
        self.child = subprocess.Popen(
            words, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    @property
    def done(self) -> int:
        """The files of the maps' data that stand in the store."""
        return len(files(self.store))

    @property
    def process(self) -> psutil.Process:
        """The client."""
        return psutil.Process(self.child.pid)

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that have begun to work or are about to."""
        with suppress(psutil.Error):
            found = self.process.children(recursive=True)
            return [p for p in found if _is_worker(p)]
        return []

    def wait(self, files: int) -> bool:
        """Wait until so many files stand, but not for ever; say whether the command still runs."""
        until = time.monotonic() + GROWS
        while self.child.poll() is None and self.done < files and time.monotonic() < until:
            time.sleep(0.02)
        return self.child.poll() is None

    def end(self, within: float = ENDS) -> Ended:
        """Wait for the end of the command and of all its processes; whatever is left then is killed and counted."""
        try:
            code = self.child.wait(within)
        except subprocess.TimeoutExpired:
            code = 124
        gone = time.monotonic() + ENDS
        while (left := self._group()) and code != 124 and time.monotonic() < gone:
            time.sleep(0.1)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        self.child.wait()
        self._log.seek(0)
        told = self._log.read().strip()
        self._log.close()
        return Ended(code, told, len(left))

    def _group(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if _is_of(p, self.child.pid)]


def kill(process: psutil.Process, number: int = signal.SIGKILL) -> bool:
    """Send a signal to a process that may be gone; say whether it was there."""
    try:
        process.send_signal(number)
    except psutil.Error:
        return False
    return True


def files(store: Path, level: str = "*") -> list[Path]:
    """Return the files of the maps' data that stand in a store, of one level or all; not those half written."""
    return [path for path in store.glob(f"image/pool/{level}/c/*/*/*") if path.suffix != ".partial"]


def recorded(store: Path) -> dict[str, Any]:
    """Return the report that a store carries."""
    report: dict[str, Any] = json.loads((store / "zarr.json").read_text())["attributes"]["_haloflow"]["report"]
    return report


def contents(store: Path) -> dict[str, bytes]:
    """Return what a store holds, but for what tells of its runs."""
    found = {}
    for path in store.rglob("*"):
        key = path.relative_to(store).as_posix()
        if path.is_file() and not key.startswith(OURS):
            found[key] = _answers(path) if key == "zarr.json" else path.read_bytes()
    return found


def _answers(path: Path) -> bytes:
    """Return the root's metadata without the run's own record, but with its mark of completion."""
    root = json.loads(path.read_text())
    root["attributes"]["_haloflow"] = root["attributes"]["_haloflow"]["complete"]
    return json.dumps(root, sort_keys=True).encode()


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


def _is_of(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False
