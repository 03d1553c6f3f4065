"""A model of a store's life: runs that end or are killed at any step, resume, begin anew, are refused; damage between.

What must hold at every moment: where the mark of completion is, every record is valid and the maps are those of the
whole image, but for chunks that were damaged after they were written, and these are told by name.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import zarr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pipeline
from pipeline.errors import OutputError
from pipeline.execute import course, running, task
from pipeline.status import check
from pipeline.storage import output, target
from pipeline.storage.lock import acquire
from pipeline.storage.place import Place
from pipeline.storage.pyramid import STAGING

KILLS = [
    *((task, "compute", "before", nth) for nth in range(5)),
    *((task, "write", "after", nth) for nth in range(5)),
    *((course.Course, "take", "after", nth) for nth in range(5)),
    (output, "add", "after", 0),
    (output, "show", "before", 0),
    (output, "show", "after", 0),
    (running, "acquire", "after", 0),
    (output, "create", "after", 0),
    (output, "finish", "before", 0),
    (output, "finish", "after", 0),
]
"""Before a task's data are written, between its data and their record, after the record, at the beginning and the end:
the function, and the number of its calls before."""


def child(work: Callable[[], Any]) -> bool:
    """Do something in a process of its own; say whether it was killed."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return bool(os.waitpid(pid, 0)[1])


def deadly(where: Any, name: str, when: str, nth: int) -> None:
    """Have this process killed before or after the n-th call of a function."""
    function, left = getattr(where, name), iter(range(nth))

    def killing(*words: Any, **named: Any) -> Any:
        last = next(left, None) is None
        if last and when == "before":
            os.kill(os.getpid(), 9)
        result = function(*words, **named)
        if last:
            os.kill(os.getpid(), 9)
        return result

    setattr(where, name, killing)


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.small = patch("pipeline.planner.TASK_PIXELS", 0)  # a task for each write unit, so that some can be left
        self.small.start()
        self.store = self.folder / "maps.zarr"
        self.weights = [1.0, 2.0]
        self.damaged: set[str] = set()

    @initialize(seed=st.integers(0, 3))
    def image(self, seed: int) -> None:
        self.pixels = np.random.default_rng(seed).integers(1, 256, (23, 19)).astype(np.uint8)
        zarr.create_array(self.folder / "image.zarr", data=self.pixels, chunks=(8, 8))

    def teardown(self) -> None:
        self.small.stop()
        shutil.rmtree(self.folder)

    def job(self, weights: list[float]) -> pipeline.Job:
        return pipeline.load(
            {
                "input": {"images": str(self.folder / "image.zarr")},
                "features": {"edge": {"rows": [weights, [3.0, -4.0]]}},
                "layers": [{"type": "convolution", "features": "edge"}, {"type": "pool", "window": 3, "stride": 2}],
                "output": {"store": str(self.place), "chunks": 5},
            }
        )

    def run(self, **how: bool) -> pipeline.Report:
        return pipeline.run(pipeline.plan(self.job(self.weights)), "serial", **how)

    @property
    def place(self) -> Place:
        return Place.of(str(self.store))

    @property
    def record(self) -> dict[str, Any]:
        return target.recorded(self.place) or {}

    @property
    def begun(self) -> list[float] | None:
        """The weights that the store was begun with."""
        return self.record["config"]["features"]["edge"]["rows"][0] if self.record else None

    @property
    def chunks(self) -> list[Path]:
        return sorted(path for path in self.store.glob("image/pool/0/c/*/*/*") if path.suffix != ".partial")

    @rule()
    def run_plainly(self) -> None:
        if target.exists(self.place):
            with pytest.raises(OutputError, match=r"exists already; give --overwrite .* --resume"):
                self.run()
        else:
            assert self.run().complete
            assert self.record["complete"] is True

    @precondition(lambda self: target.exists(self.place))
    @rule(resume=st.booleans())
    def run_again(self, resume: bool) -> None:
        if not resume or self.begun in (None, self.weights):
            assert self.run(resume=resume, overwrite=not resume).complete
            assert self.record["complete"] is True
            return
        before = {path: path.read_bytes() for path in self.store.rglob("*") if path.is_file()}
        with pytest.raises(OutputError, match=r"run that differs[^\n]*\n.*edge"):
            self.run(resume=True)
        assert {path: path.read_bytes() for path in before} == before

    @rule(step=st.sampled_from(KILLS))
    def be_killed(self, step: tuple[Any, str, str, int]) -> None:
        self.killed(step, resume=target.exists(self.place))

    @rule(step=st.sampled_from(KILLS))
    def be_killed_beginning_anew(self, step: tuple[Any, str, str, int]) -> None:
        self.killed(step, overwrite=True)

    def killed(self, step: tuple[Any, str, str, int], **how: bool) -> None:
        plan = pipeline.plan(self.job(self.weights))

        def work() -> None:
            deadly(*step)
            pipeline.run(plan, "serial", **how)

        child(work)

    @rule(weight=st.sampled_from([2.0, 5.0]))
    def change_the_config(self, weight: float) -> None:
        self.weights = [1.0, weight]

    @precondition(lambda self: self.chunks)
    @rule(nth=st.integers(0, 7), how=st.sampled_from(["cut", "flip", "remove"]))
    def damage_a_chunk(self, nth: int, how: str) -> None:
        path = self.chunks[nth % len(self.chunks)]
        stored = path.read_bytes()
        if how == "remove":
            path.unlink()
        else:
            path.write_bytes(stored[:-1] if how == "cut" else bytes([stored[0] ^ 1]) + stored[1:])
        self.damaged.add(path.relative_to(self.store).as_posix())

    @precondition(lambda self: list(self.store.glob("_haloflow/records/*")) and not self.record.get("complete"))
    @rule(nth=st.integers(0, 7), part=st.floats(0, 1))
    def tear_a_segment(self, nth: int, part: float) -> None:
        segments = sorted(self.store.glob("_haloflow/records/*"))  # their names and sizes are not the same every time
        path = segments[nth % len(segments)]
        stored = path.read_bytes()
        path.write_bytes(stored[: int(part * len(stored))])

    @precondition(lambda self: self.store.exists())
    @rule()
    def leave_partial_files(self) -> None:
        for folder in ("image/pool/0/c/0/0", STAGING):
            (self.store / folder).mkdir(parents=True, exist_ok=True)
            (self.store / folder / ".0.0123.partial").write_bytes(b"half")

    @precondition(lambda self: self.store.exists())
    @rule(how=st.sampled_from(["resume", "overwrite"]))
    def meet_another_run(self, how: str) -> None:
        lock = acquire(self.place)
        try:
            with pytest.raises(OutputError, match="is being written by"):
                self.run(**{how: True})
        finally:
            lock.release("interrupted")

    @invariant()
    def what_is_complete_is_right(self) -> None:
        if not self.record.get("complete"):
            return
        assert self.begun is not None
        expected = self.job(self.begun).stack(self.pixels)
        told = {fault.split()[0] for fault in check(self.place).faults}
        assert told <= self.damaged
        self.damaged = told  # the others were made again
        stored = zarr.open_array(self.store / "image/pool/0", mode="r")
        for y, x in product(*(range(0, extent, 5) for extent in expected.shape[1:])):
            if f"image/pool/0/c/0/{y // 5}/{x // 5}" not in told:
                box = (slice(None), slice(y, y + 5), slice(x, x + 5))
                assert np.asarray(stored[box]).tobytes() == expected[box].tobytes()


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
