"""What ``--cluster`` names: files, addresses with TLS, and workers that are not what they must be."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import zarr
from distributed import LocalCluster
from distributed.security import Security

import pipeline
from pipeline.clusters import MANAGERS, manager
from pipeline.clusters.base import caution
from pipeline.errors import ClusterError, ConfigError, HaloflowWarning
from tests.conftest import ROOT
from tests.test_cluster import _address

FILES = sorted((ROOT / "configs/clusters").glob("*.yaml"))

Call = Callable[..., tuple[int, str, str]]


def test_there_is_an_example_of_each_kind_and_each_is_valid() -> None:
    assert {manager(str(path)).type for path in FILES} == MANAGERS.keys() - {"threads"}


BROKEN = [
    ("workers: 2", "c.yaml: expected the key 'type', one of address, kubernetes, local, pbs, sge, slurm, threads"),
    ("- 1", "c.yaml: expected the key 'type'"),
    ("type: slrum", "c.yaml:1: type: there is no cluster of type 'slrum'; did you mean 'slurm'?"),
    ("type: [local]", "c.yaml:1: type: there is no cluster of type ['local']"),
    ("type: local\nworker: 2", "c.yaml:2: worker: unknown key; did you mean 'workers'? (valid: memory, type, workers)"),
    ("type: local\nworkers: 0", "c.yaml:2: workers: should be greater than or equal to 1; found 0"),
    ("type: local\nmemory: much", "c.yaml:2: memory: memory 'much': expected a number of bytes"),
    ("type: address\naddress: tls://h:1", "tls://h:1 needs tls: {ca: …, cert: …, key: …}"),
    ("type: address\naddress: tcp://h:1\ntls: {ca: a, cert: b, key: c}", "tls has no effect on tcp://h:1"),
    ("type: address\naddress: tls://h:1\ntls: {ca: a, crt: b, key: c}", "c.yaml:3: tls.crt: unknown key; did you mean"),
    ("type: slurm\nmemory: 1GB", "expected either workers, a number, or adaptive, {minimum: …, maximum: …}"),
    ("type: slurm\nworkers: 2", "memory: is missing"),
    ("type: pbs\nmemory: 1GB\nadaptive: {maximum: 4, min: 2}", "c.yaml:3: adaptive.min: unknown key; did you mean"),
    ("type: pbs\nmemory: 1GB\nadaptive: {minimum: 5, maximum: 4}", "minimum 5 is more than maximum 4"),
    ("type: sge\nmemory: 1GB\nworkers: 2\noptions: {cores: 4}", "options: 'cores' is not for a site to say"),
    ("type: sge\nmemory: 1GB\nworkers: 2\noptions: {job_script_prologue: x}", "job_script_prologue: expected a list"),
    ("type: kubernetes\nmemory: 1GB\nworkers: 2\noptions: {env: [x]}", "env: expected a mapping"),
    ("type: !!python/object:os.system x", "the tag tag:yaml.org,2002:python/object:os.system is not allowed"),
]


@pytest.mark.parametrize(("text", "words"), BROKEN, ids=[words[-40:] for _, words in BROKEN])
def test_a_broken_file_is_refused_with_line_and_key_before_any_work(
    small: Path, haloflow: Call, text: str, words: str
) -> None:
    (small / "c.yaml").write_text(text)
    code, out, err = haloflow("run", "config.yaml", "--cluster", "c.yaml")
    assert (code, out, "Traceback" in err) == (2, "", False)
    assert words in err
    assert not Path("maps.zarr").exists()


def test_a_local_cluster_as_a_file_says_and_on_loopback_alone(small: Path, haloflow: Call) -> None:
    Path("c.yaml").write_text("type: local\nworkers: 2\nmemory: 700MB\n")
    code, _, err = haloflow("run", "config.yaml", "--cluster", "c.yaml")
    assert code == 0, err
    record = zarr.open_group("maps.zarr", mode="r").attrs["_haloflow"]
    assert record["plan"]["memory_limit"] == 700_000_000
    with manager("c.yaml").connect(None, 500_000_000) as client:
        assert len(client.nthreads()) == 2
        assert client.run(lambda dask_worker: dask_worker.memory_manager.memory_limit).popitem()[1] == 700_000_000
        mine = psutil.Process()
        opened = [c for p in (mine, *mine.children(recursive=True)) for c in p.net_connections("inet")]
        assert opened
        assert {c.laddr.ip for c in opened if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_a_plan_of_more_than_the_workers_may_hold_is_refused(small: Path) -> None:
    Path("c.yaml").write_text("type: local\nworkers: 1\nmemory: 700MB\n")
    plan = pipeline.plan(pipeline.load("config.yaml"), memory="1GB")
    with pytest.raises(ClusterError, match=r"lets a worker hold 1000000000 bytes.*plan with memory='700MB'"):
        pipeline.run(plan, "c.yaml")
    assert not Path("maps.zarr").exists()


def test_a_refused_run_leaves_the_empty_folder_that_it_was_given(small: Path) -> None:
    Path("c.yaml").write_text("type: local\nworkers: 1\nmemory: 700MB\n")
    Path("elsewhere/later").mkdir(parents=True)
    Path("maps.zarr").symlink_to("elsewhere")
    plan = pipeline.plan(pipeline.load("config.yaml"), memory="1GB")
    with pytest.raises(ClusterError, match="lets a worker hold"):
        pipeline.run(plan, "c.yaml")
    assert Path("maps.zarr").is_symlink()
    assert [path.name for path in Path("elsewhere").rglob("*")] == ["later"]
    assert pipeline.run(plan, "serial").complete


@contextmanager
def processes(*options: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """A scheduler and a worker of their own, as a user starts them; gives the address."""
    told = ["--scheduler-file", "scheduler.json", "--dashboard-address", "127.0.0.1:0", *options]
    common = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *told]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--death-timeout", "60", *told]
    with Path("cluster.log").open("w") as log:
        started = [subprocess.Popen(common, stderr=log)]
        try:
            address = _address(Path("scheduler.json"))
            started.append(subprocess.Popen(worker, stderr=log, env={**os.environ, **(env or {})}))
            yield address
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(timeout=30)


def keys(folder: Path) -> list[str]:
    """Write a certificate that signs itself and its key; returns the options of Dask's commands for them."""
    made = Security.temporary()
    folder.mkdir()
    (folder / "ca.pem").write_text(str(made.tls_ca_file))
    (folder / "key.pem").write_text(str(made.tls_client_key))
    files = {"ca-file": "ca.pem", "cert": "ca.pem", "key": "key.pem"}
    return [word for name, file in files.items() for word in (f"--tls-{name}", f"{folder}/{file}")]


def test_an_address_with_tls_and_none_without_its_keys(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with processes("--protocol", "tls", *keys(small / "certs")) as address:
        assert address.startswith("tls://127.0.0.1:")
        text = f"type: address\naddress: {address}\nwait: 60\n"
        text += "tls: {ca: DIR/ca.pem, cert: DIR/ca.pem, key: DIR/key.pem}\n"
        Path("c.yaml").write_text(text.replace("DIR", "certs"))
        code, _, err = haloflow("run", "config.yaml", "--cluster", "c.yaml")
        assert (code, "warning" in err) == (0, False), err + Path("cluster.log").read_text()
        keys(small / "others")
        monkeypatch.setattr("pipeline.clusters.address.PATIENCE", 2)
        Path("c.yaml").write_text(text.replace("DIR", "others"))
        code, _, err = haloflow("run", "config.yaml", "--cluster", "c.yaml", "--overwrite")
        assert (code, "no scheduler answers there" in err, "Traceback" in err) == (2, True, False)
        Path("c.yaml").write_text(text.replace("DIR", "nowhere"))
        assert (
            "tls.ca: there is no file nowhere/ca.pem"
            in haloflow("run", "config.yaml", "--cluster", "c.yaml", "--overwrite")[2]
        )
    image = zarr.open_array("image.zarr", mode="r")[:]
    assert np.array_equal(zarr.open_array("maps.zarr/image/pool/0")[:], pipeline.load("config.yaml").stack(image))


OTHERS = """
import importlib.metadata, platform, sys
sys.modules["pipeline"] = None
theirs = importlib.metadata.version
def version(name):
    if name == "haloflow":
        raise importlib.metadata.PackageNotFoundError(name)
    return "9.9" if name == "numpy" else theirs(name)
importlib.metadata.version = version
platform.python_version = lambda: "3.99.1"
"""


def test_workers_of_other_versions_or_without_haloflow_are_refused_before_any_work(small: Path, haloflow: Call) -> None:
    Path("others").mkdir()
    Path("others/sitecustomize.py").write_text(OTHERS)
    with processes(env={"PYTHONPATH": f"{small}/others"}) as address:
        code, out, err = haloflow("run", "config.yaml", "--cluster", address)
    assert (code, out, "Traceback" in err) == (2, "", False), err
    assert "has no haloflow; here it is 0.1.0" in err
    assert f"has numpy 9.9; here it is {np.__version__}" in err
    assert "has python 3.99.1; here it is 3." in err
    assert "install the same versions on the workers as here" in err
    for same in ("zarr", "dask", "scipy", "numba", "onnxruntime", "numcodecs", "distributed"):
        assert f"has {same} " not in err
    assert not Path("maps.zarr").exists()


def test_an_open_scheduler_beyond_loopback_is_warned_of_in_a_line(small: Path, haloflow: Call) -> None:
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as made:
        address = made.scheduler_address.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - another name of this machine
        code, _, err = haloflow("run", "config.yaml", "--cluster", address)
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if "warning" in line]
    assert line.startswith(f"warning: {address} is not encrypted")


@pytest.mark.parametrize("address", ["10.0.0.1:8786", "tcp://[2001:db8::1]:8786", "tcp://node7:8786", "ws://h:1"])
def test_addresses_that_are_warned_of(address: str) -> None:
    with pytest.warns(HaloflowWarning, match="is not encrypted"):
        caution(address)


@pytest.mark.parametrize(
    "address", ["tls://10.0.0.1:8786", "tcp://127.0.0.5:1", "localhost:1", "tcp://[::1]:1", "inproc://1"]
)
def test_addresses_that_are_not(address: str) -> None:
    caution(address)


def test_other_words_are_refused(small: Path) -> None:
    with pytest.raises(ClusterError, match="--cluster slurm: expected local, threads, serial, an address"):
        manager("slurm")
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file"):
        manager("none.yaml")
    with (
        pytest.raises(ClusterError, match=r"how many tcp://127\.0\.0\.1:9 has is up to who started it"),
        manager("tcp://127.0.0.1:9").connect(2, 1),
    ):
        pass


def test_a_script_whose_work_each_worker_would_begin_again_is_told_how_to_be_written(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "i.zarr", data=np.ones((4, 4), np.uint8))
    job = {"input": {"images": "i.zarr"}, "layers": [{"type": "relu"}], "output": {"store": "o.zarr"}}
    (tmp_path / "script.py").write_text(
        f"import pipeline\npipeline.run(pipeline.plan(pipeline.load({job})), 'local', 1)\n"
    )
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode
    assert "a Python script needs its work below \"if __name__ == '__main__':\"" in ended.stderr
    assert not (tmp_path / "o.zarr").exists()


def test_the_command_is_not_told_how_a_script_is_written(
    small: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipeline.clusters.local.LocalCluster", Mock(side_effect=RuntimeError("Nanny failed to start."))
    )
    code, _, err = haloflow("run", "config.yaml", "--cluster", "local")
    assert (code, "Nanny failed to start. (was a worker killed" in err, "__main__" in err) == (2, True, False)
    monkeypatch.setattr("pipeline.clusters.local.LocalCluster", Mock(side_effect=OSError("too many open files")))
    assert haloflow("run", "config.yaml", "--cluster", "local")[2].endswith("too many open files\n")
