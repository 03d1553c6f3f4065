"""Workers as jobs of a batch system, by dask-jobqueue: SLURM, PBS and SGE."""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import dask
from distributed.core import Status
from distributed.security import Security
from pydantic import Field

from pipeline.clusters.base import EAGER, LOOPBACK, THREADS, Managed, caution, without
from pipeline.errors import ClusterError, explain


class JobQueue(Managed):
    """A cluster of jobs. The scheduler runs here, where the jobs must reach it; its messages are encrypted.

    The keys for that are made for this run alone, and lie in files of the user's as long as it lasts: in the site's
    ``shared_temp_directory``, by default the working directory.
    """

    cluster: ClassVar[str]
    """The class of dask-jobqueue."""
    ours: ClassVar[Mapping[str, str]] = {
        "cores": "a worker has one; see workers_per_job",
        "processes": "see workers_per_job",
        "memory": "give memory, a worker's, beside options",
        "n_workers": "give workers beside options",
        "nanny": "workers are always looked after",
        "security": "messages are encrypted; protocol: tcp:// leaves them open",
        **dict.fromkeys(("name", "loop", "asynchronous", "job_cls", "scheduler_cls"), "the run does"),
        **dict.fromkeys(("dashboard_address", "host"), "give it within scheduler_options"),
        **dict.fromkeys(("extra", "job_extra", "env_extra", "header_skip"), "its name is an old one"),
    }
    forms: ClassVar[Mapping[str, type]] = {"job_script_prologue": list, "scheduler_options": dict}

    workers_per_job: int = Field(1, ge=1, description="processes, each of one thread, that one job runs")

    @contextmanager
    def start(self, memory: int, troubles: list[str]) -> Iterator[Any]:
        """Give the batch system's cluster; raises `ClusterError` where there is none, or no such option."""
        try:
            jobqueue = import_module("dask_jobqueue")
            core = import_module("dask_jobqueue.core")
        except ImportError:
            raise without("dask-jobqueue", "jobqueue") from None
        made = getattr(jobqueue, self.cluster)
        self.refuse_unknown(made.job_cls.__init__, core.Job.__init__, core.JobQueueCluster.__init__)
        command = shlex.split(made.job_cls.submit_command)[0]
        if shutil.which(command) is None:
            raise ClusterError(f"there is no command {command} here: run this where jobs of {self.type} are submitted")
        with TemporaryDirectory(prefix=".haloflow-tls-", dir=self.options.get("shared_temp_directory", ".")) as folder:
            security = {"security": _keys(Path(folder).resolve())} if self._is_encrypted else {}
            with (
                dask.config.set(self._links),
                made(**self.arguments(memory), **security, job_cls=_telling(made.job_cls, troubles)) as cluster,
            ):
                yield cluster

    @property
    def _links(self) -> dict[str, str]:
        """What Dask is to say where its pages are, unless the site puts them elsewhere."""
        elsewhere = "dashboard_address" in self.options.get("scheduler_options", {})
        return {} if elsewhere else LOOPBACK

    @property
    def _is_encrypted(self) -> bool:
        return str(self.options.get("protocol", "tls://")).startswith("tls")

    def arguments(self, memory: int) -> dict[str, Any]:
        """Return all arguments of the class: ours, and the site's."""
        exported = [f"export {name}={value}" for name, value in THREADS.items()]
        return {
            **self.options,
            "cores": self.workers_per_job,
            "processes": self.workers_per_job,
            "memory": f"{memory * self.workers_per_job} B",
            "job_script_prologue": [*exported, *self.options.get("job_script_prologue", ())],
            # Its pages are for whoever reaches them: here that is who is on this machine.
            "scheduler_options": {"dashboard_address": "127.0.0.1:0", **self.options.get("scheduler_options", {})},
        }

    def grow(self, made: Any, workers: int | None) -> None:
        """Submit the jobs."""
        caution(made.scheduler_address)
        if workers is None and self.adaptive:
            made.adapt(minimum=self.adaptive.minimum, maximum=self.adaptive.maximum, target_duration=EAGER)
            return
        made.scale(workers or self.workers)


def _keys(folder: Path) -> Security:
    """Write a certificate and its key, made for this run, that scheduler and workers know each other by."""
    made = Security.temporary()
    files = {"tls_ca_file": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
    for name, text in files.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(str(text))
    both = {
        f"tls_{role}_{part}": str(folder / part)
        for role in ("client", "scheduler", "worker")
        for part in ("cert", "key")
    }
    return Security(require_encryption=True, tls_ca_file=str(folder / "tls_ca_file"), **both)


def _telling(job: Any, troubles: list[str]) -> Any:
    """Return a class of jobs that tells why one was not submitted: Dask's own then cannot close their cluster."""

    class Telling(job):  # type: ignore[misc]  # dask-jobqueue carries no types
        async def start(self) -> None:
            try:
                await super().start()
            except (OSError, RuntimeError, ValueError) as error:
                said = str(error).partition("stderr:")[2].splitlines()
                troubles.append(" ".join(line.strip() for line in said if line.strip()) or explain(error))
                self.status = Status.running  # of a job that has no number and no worker

    return Telling


class Slurm(JobQueue):
    """SLURM."""

    cluster = "SLURMCluster"
    type: Literal["slurm"]


class Pbs(JobQueue):
    """PBS, of all its makes."""

    cluster = "PBSCluster"
    type: Literal["pbs"]


class Sge(JobQueue):
    """Sun Grid Engine and its heirs."""

    cluster = "SGECluster"
    type: Literal["sge"]
