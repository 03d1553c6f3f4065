"""What all kinds of cluster have in common."""

import time
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from inspect import signature
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Self, get_args

from distributed import Client
from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from pipeline.agreement import agree
from pipeline.describe import parse_size
from pipeline.errors import ClusterError, HaloflowError, HaloflowWarning, PlanError, explain, nearest
from pipeline.sections import Section

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""The environment of a worker whose numeric libraries are to use one thread: the workers share the processors."""

LOOPBACK = {"distributed.dashboard.link": "http://127.0.0.1:{port}/status"}
"""What Dask is to say where its pages are, where they are on loopback: it would name the scheduler's host."""

LOOK = 0.5
"""Seconds between two looks whether a worker has come, or will never."""

EAGER = "50ms"
"""The seconds of work for which an adaptive cluster starts a worker.

A run keeps a few tenths of a second of work at each worker and no more, so that there is always work for further ones
until the end: with Dask's own 5 s a cluster would stay at its minimum.
"""


def _as_size(text: str) -> str:
    try:
        parse_size(text)
    except PlanError as error:
        raise ValueError(str(error)) from None
    return text


Size = Annotated[str, AfterValidator(_as_size)]


class Adaptive(Section):
    """How few and how many workers there may be; the manager starts and ends them as there is work."""

    minimum: int = Field(1, ge=1)
    maximum: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is more than maximum {self.maximum}")
        return self


class Manager(Section):
    """A kind of cluster, as a file in ``configs/clusters`` describes it."""

    starts: ClassVar[bool] = True
    """Whether workers are started for the run, and end with it."""

    type: str
    memory: Size | None = Field(None, description="what one worker may hold")

    @classmethod
    def kind(cls) -> str | None:
        """Return the ``type`` of this kind; None of a class that only others are made of."""
        found = get_args(cls.model_fields["type"].annotation)
        return str(found[0]) if found else None

    @classmethod
    def inside(cls, path: tuple[str | int, ...]) -> Iterable[str]:
        """Return the keys that may stand at a path."""
        model: type[BaseModel] | None = cls
        for part in path:
            found = model.model_fields.get(str(part)) if model else None
            kinds = (found.annotation, *get_args(found.annotation)) if found else ()
            model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        return model.model_fields if model else ()

    @contextmanager
    def connect(self, workers: int | None, memory: int) -> Iterator[Client]:
        """Start the cluster or go to it, and give a client when it has a worker and all agree on their versions.

        Parameters
        ----------
        workers
            How many, before what the file says; None to leave it at that.
        memory
            What a task may hold, in bytes: no less than this is what a worker may.

        Raises
        ------
        ClusterError
            Where there is no such cluster, it has no workers, or they are not what they must be.
        """
        if workers is not None and workers < 1:
            raise ClusterError(f"workers {workers}: expected at least 1")
        limit = parse_size(self.memory) if self.memory else memory
        if limit < memory:
            raise ClusterError(
                f"the plan lets a worker hold {memory} bytes, and the cluster's workers may hold {limit} "
                f"(memory: {self.memory}); plan with memory={self.memory!r}"
            )
        with self.client(workers, limit) as client:
            yield client

    @abstractmethod
    def client(self, workers: int | None, memory: int) -> AbstractContextManager[Client]:
        """Give a client of the cluster, in a context that ends what it has started; ``memory`` is a worker's."""


class Remote(Manager):
    """A cluster whose workers are elsewhere, started by somebody else: they may come late, and differ."""

    wait: int = Field(30, ge=1, description="seconds to wait for the first worker")

    def ready(self, client: Client, name: str, troubles: Sequence[str] = ()) -> None:
        """Wait for a worker, and see that all agree; raises `ClusterError`, also where there are ``troubles``."""
        workers = client.nthreads()
        if not workers:
            work = client.submit(int, pure=False)  # an adaptive cluster may have no workers until there is some
            try:
                self._wait(client, name, troubles)
            finally:
                work.release()
            workers = client.nthreads()
        agree(client, name, workers)

    def _wait(self, client: Client, name: str, troubles: Sequence[str]) -> None:
        until = time.monotonic() + self.wait
        while not client.nthreads():
            if troubles:
                raise ClusterError(f"--cluster {name}: {troubles[0]}")
            if time.monotonic() > until:
                raise ClusterError(f"--cluster {name}: the scheduler has no workers, after {self.wait} s")
            with suppress(TimeoutError):
                client.wait_for_workers(1, timeout=LOOK)


class Managed(Remote):
    """A cluster whose workers a site's manager starts for the run, and ends with it."""

    ours: ClassVar[Mapping[str, str]]
    """Arguments of the manager's class that are no site's option, and where each is said instead."""
    forms: ClassVar[Mapping[str, type]]
    """Of the site's options those that ours are added to, and what they must be."""

    wait: int = Field(3600, ge=1, description="seconds to wait for the first worker: jobs may stand in a queue")
    workers: int | None = Field(None, ge=1)
    adaptive: Adaptive | None = None
    memory: Size = Field(description="what one worker may hold")
    options: dict[str, Any] = Field(default_factory=dict, description="the site's: arguments of the manager's class")

    @model_validator(mode="after")
    def _is_of_one_size(self) -> Self:
        if (self.workers is None) == (self.adaptive is None):
            raise ValueError("expected either workers, a number, or adaptive, {minimum: …, maximum: …}")
        return self

    @field_validator("options")
    @classmethod
    def _are_the_sites(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            if name in cls.ours:
                raise ValueError(f"'{name}' is not for a site to say: {cls.ours[name]}")
            form = cls.forms.get(name, object)
            if not isinstance(value, form):
                kind = "list" if form is list else "mapping"
                raise ValueError(f"{name}: expected a {kind}; found {value!r}")  # noqa: TRY004 - as pydantic takes it
        return options

    @contextmanager
    def client(self, workers: int | None, memory: int) -> Iterator[Client]:
        """Start the manager's cluster and its workers, and give its client when the first is there."""
        troubles: list[str] = []
        with ExitStack() as stack:
            try:
                made = stack.enter_context(self.start(memory, troubles))
                self.grow(made, workers)
                client = stack.enter_context(Client(made))
            except HaloflowError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a site's manager answers
                raise ClusterError(f"the {self.type} cluster could not be started: {explain(error)}") from None
            self.ready(client, self.type, troubles)
            yield client

    @abstractmethod
    def start(self, memory: int, troubles: list[str]) -> AbstractContextManager[Any]:
        """Give the manager's cluster, whose workers may each hold so many bytes, and end it afterwards.

        What goes wrong when it asks for them is added to ``troubles``.
        """

    @abstractmethod
    def grow(self, made: Any, workers: int | None) -> None:
        """Let a cluster have its workers: so many, or those that the file says."""

    def refuse_unknown(self, *takers: Any) -> None:
        """Raise `ClusterError` for an option that none of these functions takes by name."""
        known = {name for taker in takers for name in signature(taker).parameters} - {"self", "scheduler", *self.ours}
        for name in self.options:
            if name not in known:
                raise ClusterError(f"options.{name}: {self.type} has no such option; {nearest(name, known)}")


def without(package: str, extra: str) -> ClusterError:
    """Return the error of a kind of cluster whose packages are not installed."""
    return ClusterError(f"this needs {package}, which is not installed: pip install 'haloflow[{extra}]'")


def caution(address: str) -> None:
    """Warn of a scheduler that whoever reaches its host can let run anything, and whose messages anyone can read."""
    scheme, _, rest = address.rpartition("://")
    host = rest.rpartition(":")[0].strip("[]") or rest
    if scheme in ("tls", "wss", "inproc") or host == "localhost":
        return
    with suppress(ValueError):
        if ip_address(host).is_loopback:
            return
    warnings.warn(
        f"{address} is not encrypted: whoever reaches it can run code as you there and on every worker; use tls:// "
        "with a file such as configs/clusters/address-tls.yaml, or a network of your own",
        HaloflowWarning,
        stacklevel=2,
    )
