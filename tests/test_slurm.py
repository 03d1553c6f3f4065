"""A real SLURM of one node, started by this test: controller, node, a queue, and jobs that are workers.

Debian's packages have all of it: apt-get install slurm-wlm. Nothing needs to be configured, or to be root.
"""

import getpass
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    not (shutil.which("slurmctld") and shutil.which("slurmd")),
    reason="SLURM is not installed (Debian: apt-get install slurm-wlm)",
)

CONF = """\
ClusterName=haloflow
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES State=UP OverSubscribe=FORCE:8
"""


def told(*words: str) -> str:
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout


def until(words: list[str], there: str) -> None:
    """Wait until a command of SLURM says something."""
    limit = time.monotonic() + 60
    while there not in (said := told(*words)):
        assert time.monotonic() < limit, f"{words} never said {there!r}, but {said!r}"
        time.sleep(0.1)


@pytest.fixture
def slurm(small: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = small / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    conf = CONF.format(host=socket.gethostname(), user=getpass.getuser(), ports=ports, folder=folder)
    (folder / "slurm.conf").write_text(conf)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "log").open("wb") as log:
            started.append(subprocess.Popen(["slurmctld", "-D"], stdout=log, stderr=log))
            until(["scontrol", "ping"], "UP")
            started.append(subprocess.Popen(["slurmd", "-D", "-N", socket.gethostname()], stdout=log, stderr=log))
            until(["sinfo", "-h", "-o", "%T"], "idle")
            yield
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)


def test_a_run_in_jobs_of_slurm(slurm: None, small: Path) -> None:
    """The file of configs/clusters as it stands, but for how large this node is."""
    text = (ROOT / "configs/clusters/slurm.yaml").read_text()
    for old, new in (
        ("workers: 4 ", "workers: 2 "),
        ("memory: 4GB", "memory: 900MB"),
        ("  # queue: normal", "  queue: short"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    Path("slurm.yaml").write_text(text + "  log_directory: logs\n")
    run = [sys.executable, "-m", "pipeline.cli", "run", "config.yaml", "--cluster", "slurm.yaml"]
    done = subprocess.run([*run, "--json"], check=False, capture_output=True, text=True, timeout=300)
    logs = "\n".join(path.read_text() for path in Path("logs").iterdir())
    assert done.returncode == 0, done.stderr + logs
    image = zarr.open_array("image.zarr", mode="r")[:]
    stored = zarr.open_array("maps.zarr/image/pool/0", mode="r")[:]
    assert np.array_equal(stored, pipeline.load("config.yaml").stack(image))
    assert "tls://" in logs
    assert told("squeue", "-h", "-t", "R") == ""
    assert not list(Path().glob(".haloflow-tls*"))  # the keys went with the run


def test_what_slurm_refuses_is_told_at_once(slurm: None, small: Path) -> None:
    Path("slurm.yaml").write_text("type: slurm\nworkers: 1\nmemory: 900MB\noptions: {queue: nowhere}\n")
    run = [sys.executable, "-m", "pipeline.cli", "run", "config.yaml", "--cluster", "slurm.yaml"]
    done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "invalid partition" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("maps.zarr").exists()
