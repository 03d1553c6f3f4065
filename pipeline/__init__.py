"""Haloflow: stacks of convolution and pooling layers over chunked images too large for memory, exact at every seam.

>>> import pipeline
>>> job = pipeline.load("configs/xo.yaml")
>>> job.stack.names
('match', 'relu', 'pool')
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import plan, run
    from pipeline.errors import HaloflowError
    from pipeline.execute.report import Report
    from pipeline.exporting.export import export
    from pipeline.fitting import Fit, fit
    from pipeline.ingesting.ingest import ingest
    from pipeline.job import Job, load
    from pipeline.labelled import open_store as open  # noqa: A004 - as pipeline.open
    from pipeline.planning import Plan
    from pipeline.verification import Verification, verify

__all__ = [
    "Fit",
    "HaloflowError",
    "Job",
    "Plan",
    "Report",
    "Verification",
    "export",
    "fit",
    "ingest",
    "load",
    "open",
    "plan",
    "run",
    "verify",
]

_HOMES = {
    "Fit": "pipeline.fitting",
    "HaloflowError": "pipeline.errors",
    "Job": "pipeline.job",
    "Plan": "pipeline.planning",
    "Report": "pipeline.execute.report",
    "Verification": "pipeline.verification",
    "export": "pipeline.exporting.export",
    "fit": "pipeline.fitting",
    "ingest": "pipeline.ingesting.ingest",
    "load": "pipeline.job",
    "open": "pipeline.labelled",
    "plan": "pipeline.api",
    "run": "pipeline.api",
    "verify": "pipeline.verification",
}

_NAMES = {"open": "open_store"}
"""What is called otherwise at home: ``open`` would hide Python's own there."""


def __getattr__(name: str) -> Any:
    # Loaded on use, so that 'haloflow --help' does not wait for NumPy, Zarr and Dask.
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), _NAMES.get(name, name))
