"""A scheduler that somebody has started, at its address."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal, Self

from distributed import Client
from distributed.security import Security
from distributed.versions import VersionMismatchWarning
from pydantic import Field, model_validator

from pipeline.clusters.base import Remote, caution
from pipeline.errors import ClusterError, explain
from pipeline.sections import Section

PATIENCE = 10
"""Seconds that a scheduler may take to answer."""


class Tls(Section):
    """The files (PEM) by which the two ends of a connection know each other; workers and scheduler have the same ca."""

    ca: str = Field(min_length=1, description="the certificate of who has signed all the others")
    cert: str = Field(min_length=1, description="this client's certificate")
    key: str = Field(min_length=1, description="its private key")


class Address(Remote):
    """A scheduler at an address; how many workers it has, and what they may hold, is up to whoever started them."""

    starts: ClassVar[bool] = False

    type: Literal["address"]
    address: str = Field(min_length=1, description="such as tls://host:8786")
    tls: Tls | None = Field(None, description="for tls:// addresses")

    @model_validator(mode="after")
    def _is_told_how(self) -> Self:
        if self.address.startswith("tls://") and self.tls is None:
            raise ValueError(f"{self.address} needs tls: {{ca: …, cert: …, key: …}}, in a file for --cluster")
        if self.tls is not None and not self.address.startswith("tls://"):
            raise ValueError(f"tls has no effect on {self.address}; expected an address tls://host:port")
        return self

    @contextmanager
    def client(self, workers: int | None, memory: int) -> Iterator[Client]:
        """Go to the scheduler; raises `ClusterError` where none answers."""
        del memory
        if workers is not None:
            raise ClusterError(f"--workers: how many {self.address} has is up to who started it; leave it out")
        caution(self.address)
        try:
            with warnings.catch_warnings():  # what `agree` says is more precise, and ends the run
                warnings.simplefilter("ignore", VersionMismatchWarning)
                client = Client(self.address, timeout=PATIENCE, security=self._security())
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(
                f"--cluster {self.address}: no scheduler answers there ({explain(error)}); start one with 'dask "
                "scheduler', or see configs/clusters for other clusters"
            ) from None
        with client:
            self.ready(client, self.address)
            yield client

    def _security(self) -> Security | None:
        if self.tls is None:
            return None
        for name, path in self.tls.model_dump().items():
            if not Path(path).is_file():
                raise ClusterError(f"tls.{name}: there is no file {path}")
        return Security(
            require_encryption=True,
            tls_ca_file=self.tls.ca,
            tls_client_cert=self.tls.cert,
            tls_client_key=self.tls.key,
        )
