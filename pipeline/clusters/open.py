"""A cluster that the caller has a client of, and keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Self

from distributed import Client
from pydantic import PrivateAttr

from pipeline.clusters.base import Remote
from pipeline.errors import ClusterError


class Open(Remote):
    """Workers that were there before the run and stay afterwards, with the client of who started them."""

    starts: ClassVar[bool] = False
    type: str = "client"
    _client: Client = PrivateAttr()

    @classmethod
    def of(cls, client: Client) -> Self:
        """Return the cluster of a client; raises `ClusterError` where it is closed, or belongs to an event loop."""
        if client.asynchronous:
            raise ClusterError("cluster: expected a client that waits; this one is asynchronous")
        if client.status != "running":
            raise ClusterError(f"cluster: expected a client that is connected; this one is {client.status}")
        made = cls()
        made._client = client
        return made

    @contextmanager
    def client(self, workers: int | None, memory: int) -> Iterator[Client]:
        """Give the client, and leave it open."""
        del memory
        if workers is not None:
            raise ClusterError("workers: how many there are is up to who started the client's cluster; leave it out")
        self.ready(self._client, self._client.scheduler.address)
        yield self._client
