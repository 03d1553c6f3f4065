"""Batch systems and Kubernetes as far as they go without one: what they are asked for, and what they cannot do."""

import os
import re
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from distributed import Client, Event, LocalCluster

from pipeline.clusters import manager
from pipeline.clusters.base import THREADS
from tests.conftest import ROOT

Call = Callable[..., tuple[int, str, str]]

COMMANDS = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub"}

SAID = {
    "slurm": ["#SBATCH -t 01:00:00", "#SBATCH --no-requeue", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G"],
    "pbs": [
        "#PBS -q workq",
        "#PBS -A my-lab",
        "#PBS -l select=1:ncpus=4:mem=17gb",
        "module load python",
        "--nworkers 4",
    ],
    "sge": ["#$ -q all.q", "#$ -P my-lab", "#$ -l h_rt=3600", "#$ -l h_vmem=5G", "#$ -V"],
}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what submits jobs: they take none."""
    monkeypatch.chdir(tmp_path)
    for name in COMMANDS.values():
        (tmp_path / name).write_text("#!/bin/sh\necho 'the queue is closed' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_script_of_a_job_has_what_the_site_wants_and_one_thread_a_worker(commands: None, kind: str) -> None:
    with manager(f"{ROOT}/configs/clusters/{kind}.yaml").start(4 * 10**9, []) as made:
        script = made.job_script()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/status", made.dashboard_link)
        port = int(made.dashboard_link.split(":")[2].split("/")[0])
        listening = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.laddr.port == port}
        assert listening == {"127.0.0.1"}
    for line in SAID[kind]:
        assert line in script
    for name in THREADS:
        assert f"\nexport {name}=1\n" in script
    assert script.index("export OMP_NUM_THREADS=1") < script.index("distributed.cli.dask_worker")
    assert f"{sys.executable} -m distributed.cli.dask_worker tls://" in script
    for words in ("--nthreads 1", "--memory-limit 3.73GiB", "--tls-ca-file", "--tls-cert", "--tls-key"):
        assert words in script


def test_a_queue_that_takes_no_jobs_ends_the_run_with_its_words(commands: None, small: Path, haloflow: Call) -> None:
    Path("c.yaml").write_text(
        "type: sge\nmemory: 800MB\nworkers: 2\noptions: {protocol: 'tcp://', scheduler_options: {host: 127.0.0.1}}\n"
    )
    code, _, err = haloflow("run", "config.yaml", "--cluster", "c.yaml")
    assert (code, err) == (2, "error: --cluster sge: the queue is closed\n")
    assert not Path("maps.zarr").exists()


def test_what_a_manager_cannot_do_is_told_before_any_work(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(options: str) -> str:
        Path("c.yaml").write_text(f"type: pbs\nmemory: 800MB\nworkers: 2\noptions: {options}\n")
        code, out, err = haloflow("run", "config.yaml", "--cluster", "c.yaml")
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        return err

    assert "options.que: pbs has no such option; did you mean 'queue'?" in tell("{que: long}")
    monkeypatch.setenv("PATH", str(small))
    assert "there is no command qsub here: run this where jobs of pbs are submitted" in tell("{queue: long}")
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    assert "dask-jobqueue, which is not installed: pip install 'haloflow[jobqueue]'" in tell("{queue: long}")
    monkeypatch.setitem(sys.modules, "dask_kubernetes", None)
    Path("c.yaml").write_text("type: kubernetes\nmemory: 800MB\nworkers: 2\n")
    err = haloflow("run", "config.yaml", "--cluster", "c.yaml")[2]
    assert "dask-kubernetes, which is not installed: pip install 'haloflow[kubernetes]'" in err
    assert not Path("maps.zarr").exists()


class KubeCluster(LocalCluster):  # type: ignore[misc]  # distributed carries no types
    """The interface of the operator's class, over threads of this process: there is no Kubernetes in this test."""

    asked: dict[str, Any]

    def __init__(
        self,
        *,
        name: str,
        namespace: str | None = None,
        image: str | None = None,
        n_workers: int | None = None,
        resources: dict | None = None,
        env: dict | None = None,
        worker_command: list | None = None,
        quiet: bool = False,
    ) -> None:
        type(self).asked = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(n_workers=n_workers, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0")

    def adapt(self, minimum: int | None = None, maximum: int | None = None) -> None:  # type: ignore[override]
        type(self).asked["adapt"] = (minimum, maximum)


def test_kubernetes_is_asked_for_what_the_file_says(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = ModuleType("dask_kubernetes.operator")
    operator.KubeCluster = KubeCluster  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_kubernetes", ModuleType("dask_kubernetes"))
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", operator)
    text = """
        type: kubernetes
        adaptive: {minimum: 2, maximum: 9}
        memory: 800MB
        options: {image: lab/haloflow, namespace: lab, env: {LAB: x}}
    """
    Path("c.yaml").write_text(textwrap.dedent(text))
    code, _, err = haloflow("run", "config.yaml", "--cluster", "c.yaml")
    assert code == 0, err
    asked = KubeCluster.asked
    assert (asked["image"], asked["namespace"], asked["n_workers"], asked["adapt"]) == (
        "lab/haloflow",
        "lab",
        2,
        (2, 9),
    )
    assert asked["resources"]["limits"] == asked["resources"]["requests"] == {"cpu": "1", "memory": "800000000"}
    assert {**THREADS, "LAB": "x"}.items() <= asked["env"].items()
    assert asked["worker_command"] == ["dask-worker", "--nthreads", "1"]


def test_an_adaptive_cluster_grows_while_there_is_work(commands: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the few futures that a run has under way, the scheduler asks for more workers than there are."""
    asked = {}
    with manager(f"{ROOT}/configs/clusters/pbs.yaml").start(10**9, []) as made:
        monkeypatch.setattr(type(made), "adapt", lambda _, **words: asked.update(words))
        manager(f"{ROOT}/configs/clusters/pbs.yaml").grow(made, None)
    assert (asked["minimum"], asked["maximum"]) == (1, 40)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as busy,
        Client(busy) as client,
    ):
        go = Event("go", client=client)
        futures = [client.submit(lambda: Event("go").wait(), pure=False) for _ in range(2)]
        limit, target = time.monotonic() + 30, 0
        while target < 2 and time.monotonic() < limit:  # until the scheduler knows of both
            target = client.run_on_scheduler(
                lambda dask_scheduler: dask_scheduler.adaptive_target(target_duration=asked["target_duration"])
            )
        go.set()
        client.gather(futures)
    assert target >= 2
