"""Who does the work of a run, and Dask's report on how they did it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from distributed import Client, performance_report

from pipeline.errors import ClusterError, OutputError, RunError, explain


@dataclass(frozen=True)
class Crew:
    """The workers of a run when it begins, each of one thread, and the address of the cluster's dashboard."""

    workers: int
    dashboard: str | None

    @classmethod
    def of(cls, client: Client) -> "Crew":
        """Return who a client's workers are."""
        return cls(sum(client.nthreads().values()), client.dashboard_link or None)


def check(file: str | Path | None, cluster: str) -> None:
    """Refuse a file for Dask's report that could not be written, or of which there would be nothing to say."""
    if file is None:
        return
    if cluster == "serial":
        raise ClusterError("--performance-report: --cluster serial has no Dask to report on; take another cluster")
    if find_spec("bokeh") is None:
        raise ClusterError("--performance-report: bokeh is not installed: pip install 'haloflow[dashboard]'")
    path = Path(file)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError(f"--performance-report {file}: expected a file in a folder that can be written")


@contextmanager
def reported(client: Client, file: str | Path | None) -> Iterator[None]:
    """Write Dask's report on what a client's cluster does meanwhile, as HTML that needs nothing from the network."""
    if file is None:
        yield
        return
    report = performance_report(filename=str(file), mode="inline")
    with client.as_current():
        report.__enter__()
    yield
    try:
        with client.as_current():
            report.__exit__(None, None, None)
    except Exception as error:  # noqa: BLE001 - what the cluster, bokeh or the disk make of it: the work is done
        raise RunError(f"--performance-report {file}: cannot be written ({explain(error)}); the work is done") from None
