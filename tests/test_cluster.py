"""Executors: one test suite for all of them, on the real photograph where it counts."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster, WorkerPlugin

import pipeline
from pipeline.errors import ClusterError, InputError, RunError
from pipeline.execute import cluster, drive, roster, stock
from pipeline.execute.feed import Feed
from pipeline.execute.task import Done, Failed
from pipeline.execute.watching import Event, Progress
from pipeline.storage.place import Place
from pipeline.storage.records import Segments
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def marble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marble")
    pipeline.ingest(ROOT / "tests/data/blue_marble.jpg", folder / "blue_marble.zarr", chunks=509)
    return folder


@pytest.fixture(scope="module")
def job(marble: Path) -> pipeline.Job:
    return pipeline.load(
        ROOT / "configs/blue_marble.yaml",
        [
            f"input.images={marble}/blue_marble.zarr",
            f"output.store={marble}/maps.zarr",
            "output.layers=[strokes_pooled, slants_pooled]",
            "output.chunks=131",
        ],
    )


@pytest.fixture(scope="module")
def whole(marble: Path, job: pipeline.Job) -> dict[str, np.ndarray]:
    image = zarr.open_array(f"{marble}/blue_marble.zarr/0", mode="r")[:]
    return {layer: job.stack(image, layer) for layer in ("strokes_pooled", "slants_pooled")}


@pytest.mark.parametrize("kind", ["local", "threads", "serial"])
def test_blue_marble_equals_the_whole_image(job: pipeline.Job, whole: dict[str, np.ndarray], kind: str) -> None:
    plan = pipeline.plan(job)
    assert plan.tasks >= 6
    seen = []
    report = pipeline.run(plan, kind, workers=2, overwrite=True, progress=seen.append)
    assert report.complete
    told = [(event.done, event.tasks) for event in seen if isinstance(event, Progress)]
    assert told == [(n + 1, plan.tasks) for n in range(plan.tasks)]
    assert type(report) is pipeline.Report
    root = zarr.open_group(plan.store.store(), mode="r")
    for layer, expected in whole.items():
        stored = root[f"blue_marble/{layer}/0"][:]
        assert np.array_equal(stored.view(np.uint32), expected.view(np.uint32))
    record = root.attrs["_haloflow"]
    assert record["complete"] is True
    assert record["report"]["done"] == plan.tasks
    found = pipeline.verify(job)
    assert found.passed
    assert found.windows == 32


def test_the_address_of_a_scheduler(small: Path) -> None:
    job = pipeline.load("config.yaml")
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as made:
        report = pipeline.run(pipeline.plan(job), made.scheduler_address)
        assert report.complete
        with Client(made) as client:
            # The plan was given back with the run.
            held = client.run(lambda dask_worker: [n for n in dask_worker.plugins if n.startswith("haloflow")])
            assert held.popitem()[1] == []


def test_a_worker_loads_neither_kernels_of_other_stacks_nor_what_only_a_client_asks(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with (
        LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as made,
        Client(made) as client,
    ):
        assert pipeline.run(plan, made.scheduler_address).complete
        (loaded,) = client.run(lambda: set(sys.modules)).values()
    assert {"pipeline.execute.cluster", "numba"} <= loaded
    assert not loaded & {"onnx", "onnxruntime", "scipy.fft", "scipy.ndimage", "scipy.special"}
    assert not loaded & {"ome_zarr_models", "PIL.Image", "pipeline.clusters", "pipeline.config"}


def test_a_scheduler_without_workers_ends_the_run(small: Path) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", processes=False) as made:
        Path("there.yaml").write_text(f"type: address\naddress: {made.scheduler_address}\nwait: 1\n")
        with pytest.raises(ClusterError, match="the scheduler has no workers, after 1 s"):
            pipeline.run(plan, "there.yaml")


def _address(told: Path) -> str:
    """Wait until a scheduler has written where it listens."""
    for _ in range(600):
        with suppress(OSError, ValueError):
            return str(json.loads(told.read_text())["address"])
        time.sleep(0.05)
    raise AssertionError("the scheduler did not start")


def test_the_death_of_the_scheduler_ends_the_run(small: Path) -> None:
    """Real processes: a scheduler of its own, killed while tasks run."""
    # A task a plane: enough of them that the run is not over before anybody sees that it has begun.
    planes = np.random.default_rng(1).integers(0, 256, (600, 32, 32)).astype(np.uint8)
    zarr.create_array("planes.zarr", data=planes, chunks=(1, 32, 32), dimension_names=("z", "y", "x"))
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    words = [*dask, "--dashboard-address", "127.0.0.1:0", "--scheduler-file", "scheduler.json"]
    scheduler = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", "scheduler.json"]
    worker += ["--nthreads", "1", "--dashboard-address", "127.0.0.1:0", "--death-timeout", "20"]
    helper = subprocess.Popen(worker, stderr=subprocess.DEVNULL)
    try:
        address = _address(Path("scheduler.json"))
        run = [sys.executable, "-m", "pipeline.cli", "run", "config.yaml", "--cluster", address]
        client = subprocess.Popen([*run, "--set", "input.images=planes.zarr"], stderr=subprocess.PIPE, text=True)
        while not list(Path().glob("maps.zarr/planes/pool/0/c/*/*/*/*")):
            assert client.poll() is None
            time.sleep(0.05)
        scheduler.kill()
        _, err = client.communicate(timeout=60)
        assert client.returncode == 3, err
        assert "Traceback" not in err
        assert "go on with --resume" in err
    finally:
        for process in (scheduler, helper):
            process.kill()
            process.wait()


def cut(plan: pipeline.Plan, step: int) -> pipeline.Plan:
    """Return the plan in blocks of ``step`` input pixels."""
    (one,) = plan.images
    return replace(plan, images=(replace(one, grid=replace(one.grid, step=(step, step))),))


def test_a_run_whose_workers_are_all_gone_ends_and_says_how_to_go_on(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "WAIT", 1)
    monkeypatch.setattr(drive, "LOOK", 0.1)
    monkeypatch.setattr(stock, "BATCH", 0.0)  # a future a task, so that there are some left when the worker leaves
    plan = cut(pipeline.plan(pipeline.load("config.yaml", ["output.chunks=1"])), 4)
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as made:

        def leave(event: Event) -> None:
            if isinstance(event, Progress):
                made.scale(0)

        with pytest.raises(RunError, match=r"there has been no worker for 1 s; .* go on with --resume"):
            pipeline.run(plan, made.scheduler_address, progress=leave)
    report = pipeline.run(plan, "serial", resume=True)
    assert report.complete
    assert 0 < report.resumed < plan.tasks


class _Dying(WorkerPlugin):
    """Tasks do nothing, and the process that runs one of them dies there: the first time, or each time."""

    def __init__(self, block: int, marker: Path | None) -> None:
        self.block = block
        self.marker = marker

    def setup(self, worker: object) -> None:
        del worker

        def attempt(plan: object, image: int, block: int, cache: object, segment: object) -> Done:
            if block == self.block and not (self.marker and self.marker.exists()):
                if self.marker:
                    self.marker.touch()
                os._exit(1)
            return Done(image, block, 1e-4, 1, 1, ((0.0, 1.0),))

        cluster.attempt = attempt


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_the_death_of_a_worker_costs_no_task_but_the_one_that_kills(small: Path, always: bool) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml", ["output.chunks=1"]))
    plan = cut(plan, 2)
    assert plan.tasks > 200
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as made,
        Client(made) as client,
    ):
        client.register_plugin(_Dying(77, None if always else small / "died"), name="dying")
        outcomes = list(cluster.run(Feed.of(plan.images), client, Segments(Place.of(str(small / "none")), "", 1)))
    assert sorted(o.block for o in outcomes) == list(range(plan.tasks))
    failed = [o.block for o in outcomes if isinstance(o, Failed)]
    assert failed == ([77] if always else [])


def test_a_lazy_stack_reads_nothing_until_asked_and_keeps_the_graph_small(small: Path) -> None:
    job = pipeline.load("config.yaml")
    asked = []

    def touch(block: np.ndarray) -> np.ndarray:
        asked.append(block.shape)
        return block

    image = np.random.default_rng(0).integers(0, 256, (2, 96, 96)).astype(np.uint8)
    source = da.from_array(image, chunks=(2, 16, 16)).map_blocks(touch, meta=np.empty((0, 0, 0), np.uint8))
    lazy = job.stack(source)
    assert not asked
    assert lazy.dtype == np.float32
    assert lazy.chunks == ((1,), (8,) * 5 + (7,), (8,) * 5 + (7,))
    added = len(lazy.__dask_graph__()) - len(source.__dask_graph__())
    assert added <= 4 * 36
    assert np.array_equal(lazy.compute(scheduler="synchronous"), job.stack(image))
    # It composes: a slice asks for its own blocks only.
    asked.clear()
    lazy[:, :3, :3].compute(scheduler="synchronous")
    assert len(asked) <= 4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_unknown_chunk_sizes_are_named(small: Path, axis: int) -> None:
    image = da.from_array(np.ones((4, 30, 30), np.uint8), chunks=10)
    keep = da.from_array(np.arange(image.shape[axis]) % 2 == 0)
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        pipeline.load("config.yaml").stack(da.compress(keep, image, axis))


@pytest.mark.parametrize("lazy", [False, True])
def test_what_masked_pixels_are_is_not_guessed(small: Path, lazy: bool) -> None:
    image = np.ma.masked_greater(np.arange(900, dtype=np.uint16).reshape(30, 30), 500)
    with pytest.raises(InputError, match=r"masked array; say what masked pixels are: image.filled\(VALUE\)"):
        pipeline.load("config.yaml").stack(da.from_array(image, chunks=10) if lazy else image)


@pytest.mark.parametrize("lazy", [False, True])
def test_an_array_that_looks_interleaved_is_not_taken_for_channels(small: Path, lazy: bool) -> None:
    image = np.ones((37, 41, 3), np.uint8)
    stack = pipeline.load("config.yaml").stack
    with pytest.raises(InputError, match=r"\(37, 41, 3\), which looks like \(y, x, c\); expected \(c, y, x\)"):
        stack(da.from_array(image, chunks=10) if lazy else image)
    with pytest.raises(InputError, match=r"expected \(c, y, x\): numpy.moveaxis"):
        stack(image)
