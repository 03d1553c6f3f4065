"""Workers as pods of Kubernetes, by the operator of dask-kubernetes."""

import os
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, ClassVar, Literal

from pipeline.clusters.base import EAGER, THREADS, Managed, without


class Kubernetes(Managed):
    """A cluster of pods, in which the Dask operator is installed. The scheduler is reached by a forwarded port."""

    ours: ClassVar[Mapping[str, str]] = {
        "n_workers": "give workers beside options",
        "resources": "give memory, a worker's, beside options; it has one processor",
        "worker_command": "a worker has one thread",
        **dict.fromkeys(
            ("loop", "asynchronous", "quiet", "shutdown_on_close", "create_mode", "jupyter"), "the run does"
        ),
        "custom_cluster_spec": "leave it to the other options, or start the cluster yourself and give its address",
    }
    forms: ClassVar[Mapping[str, type]] = {"env": dict}
    type: Literal["kubernetes"]

    def start(self, memory: int, troubles: list[str]) -> AbstractContextManager[Any]:
        """Return the operator's cluster; raises `ClusterError` where its package is not installed."""
        del troubles  # it raises them itself
        try:
            made = import_module("dask_kubernetes.operator").KubeCluster
        except ImportError:
            raise without("dask-kubernetes", "kubernetes") from None
        self.refuse_unknown(made.__init__)
        cluster: AbstractContextManager[Any] = made(**self.arguments(memory))
        return cluster

    def arguments(self, memory: int) -> dict[str, Any]:
        """Return all arguments of the class: ours, and the site's."""
        held = {"cpu": "1", "memory": str(memory)}
        said = self.options.get("env", {})
        eager = {"DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION": EAGER}
        return {
            "name": f"haloflow-{os.getpid()}-{secrets.token_hex(3)}",
            **self.options,
            "n_workers": self.adaptive.minimum if self.adaptive else self.workers,
            "resources": {"requests": held, "limits": held},
            "env": {**THREADS, **eager, **said},
            "worker_command": ["dask-worker", "--nthreads", "1"],
            "quiet": True,
        }

    def grow(self, made: Any, workers: int | None) -> None:
        """Let the operator start and end workers: so many, or as there is work."""
        if workers is not None:
            made.scale(workers)
        elif self.adaptive:
            made.adapt(minimum=self.adaptive.minimum, maximum=self.adaptive.maximum)
