"""Whether a cluster's workers are what their client is: the same Python and packages, so the same bits."""

import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client

from pipeline.errors import ClusterError, explain

PACKAGES = ("haloflow", "numpy", "zarr", "dask", "distributed", "numcodecs", "scipy", "numba", "onnxruntime")
"""What must be of one version on client and workers: what speaks between them, and what decides the bits."""


def versions(ask: Callable[[Callable[..., str]], Any]) -> dict[str, Any]:
    """Return what ``ask`` answers to a function that gives a version, by the name of what it is of.

    The functions are Python's own, so that they reach workers that have nothing of ours.
    """
    told = {"python": ask(platform.python_version)}
    return told | {name: ask(partial(version, name)) for name in PACKAGES}


def agree(client: Client, name: str) -> None:
    """Raise `ClusterError` where a worker has another version of something than this process, or lacks it."""
    try:
        theirs = versions(lambda function: client.run(function, on_error="return"))
    except Exception as error:  # noqa: BLE001 - whatever versions that do not understand each other make of it
        raise ClusterError(f"--cluster {name}: its workers do not answer ({explain(error)})") from None
    mine = versions(lambda function: function())
    found: dict[str, list[str]] = {}
    for package, answers in theirs.items():
        for worker, answer in answers.items():
            if isinstance(answer, PackageNotFoundError):
                found.setdefault(f"has no {package}; here it is {mine[package]}", []).append(worker)
            elif isinstance(answer, BaseException):
                found.setdefault(f"cannot say its version of {package} ({explain(answer)})", []).append(worker)
            elif _deciding(package, answer) != _deciding(package, mine[package]):
                found.setdefault(f"has {package} {answer}; here it is {mine[package]}", []).append(worker)
    if found:
        lines = [
            f"--cluster {name}: worker {workers[0]}{f' and {len(workers) - 1} others' if workers[1:] else ''} {what}"
            for what, workers in found.items()
        ]
        raise ClusterError("\n".join([*lines, "install the same versions on the workers as here"]))


def _deciding(package: str, found: str) -> str:
    """Return what of a version must be the same: of Python its minor version, of packages all of it."""
    return ".".join(found.split(".")[:2]) if package == "python" else found
