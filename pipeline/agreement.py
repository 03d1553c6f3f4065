"""Whether a cluster's workers are what their client is: the same Python and packages, so the same bits."""

import asyncio
import platform
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pipeline.errors import ClusterError, explain

if TYPE_CHECKING:
    from distributed import Client  # what only opens images has no use for it, and it takes long to load

PACKAGES = ("haloflow", "numpy", "zarr", "dask", "distributed", "numcodecs", "scipy", "numba", "onnxruntime")
"""What must be of one version on client and workers: what speaks between them, and what decides the bits."""

ANSWER = 60.0
"""Seconds that workers may take to answer before a run: they may have to load what they are asked about."""

_LIKE_HERE: "WeakKeyDictionary[Client, frozenset[str]]" = WeakKeyDictionary()
"""The workers of each client that have what is here: a process keeps what it has loaded, so it is asked once."""


def versions(ask: Callable[[Callable[..., str]], Any]) -> dict[str, Any]:
    """Return what ``ask`` answers to a function that gives a version, by the name of what it is of.

    The functions are Python's own, so that they reach workers that have nothing of ours.
    """
    told = {"python": ask(platform.python_version)}
    return told | {name: ask(partial(version, name)) for name in PACKAGES}


@cache
def own() -> Mapping[str, Any]:
    """Return the versions of this process; what is not installed has an exception for one.

    To look them up takes some 15 ms: a package's whole description is parsed for each.
    """

    def answer(function: Callable[..., str]) -> Any:
        try:
            return function()
        except PackageNotFoundError as error:
            return error

    return versions(answer)


def unlike(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Return in words what of a worker's versions is not as here.

    >>> unlike({"python": "3.11.1", "numpy": "1.9"}, {"python": "3.11.7", "numpy": "2.1"})
    ['has numpy 1.9; here it is 2.1']
    """
    found = []
    for package, answer in theirs.items():
        if isinstance(answer, PackageNotFoundError):
            found.append(f"has no {package}; here it is {mine[package]}")
        elif isinstance(answer, BaseException):
            found.append(f"cannot say its version of {package} ({explain(answer)})")
        elif _deciding(package, answer) != _deciding(package, mine[package]):
            found.append(f"has {package} {answer}; here it is {mine[package]}")
    return found


def agree(client: "Client", name: str, workers: Iterable[str]) -> None:
    """Raise `ClusterError` where one of the workers has another version of something than this process, or lacks it."""
    mine = own()
    if _LIKE_HERE.get(client, frozenset[str]()).issuperset(workers):
        return
    try:
        # One question where they have what is here, and one for each package to learn what they have else.
        answers = client.sync(_ask_all, client, callback_timeout=ANSWER)
        if all(answer == mine for answer in answers.values()):
            _LIKE_HERE[client] = frozenset(answers)
            return
        theirs = versions(lambda function: client.run(function, on_error="return"))
    except TimeoutError:
        raise ClusterError(f"--cluster {name}: {silent(client)} does not answer; end it, and run again") from None
    except Exception as error:  # noqa: BLE001 - whatever versions that do not understand each other make of it
        raise ClusterError(f"--cluster {name}: its workers do not answer ({explain(error)})") from None
    found: dict[str, list[str]] = {}
    for package, answers in theirs.items():
        for worker, answer in answers.items():
            for what in unlike({package: answer}, mine):
                found.setdefault(what, []).append(worker)
    if found:
        lines = [
            f"--cluster {name}: worker {those[0]}{f' and {len(those) - 1} others' if those[1:] else ''} {what}"
            for what, those in found.items()
        ]
        raise ClusterError("\n".join([*lines, "install the same versions on the workers as here"]))


async def _ask_all(client: "Client") -> dict[str, Any]:
    return dict(await client.run(own, on_error="return"))


def silent(client: "Client") -> str:
    """Return in words which worker has not been heard of for the longest time."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return f"the worker {min(workers, key=lambda worker: workers[worker]['last_seen'])}" if workers else "a worker"


def latecomers(client: "Client", workers: Iterable[str], patience: float) -> dict[str, list[str]]:
    """Return of those of the workers that answer within seconds, and are not as this process, in words what is not."""
    mine = own()

    async def ask(worker: str) -> list[str]:
        async def one(function: Callable[..., str]) -> Any:
            told = await asyncio.wait_for(client.run(function, workers=[worker], on_error="return"), patience)
            return told[worker]

        asked = versions(one)
        try:
            return unlike(dict(zip(asked, await asyncio.gather(*asked.values()), strict=True)), mine)
        except (OSError, TimeoutError, KeyError):  # gone, or hangs
            return []

    async def ask_all() -> dict[str, list[str]]:
        asked = list(workers)
        return dict(zip(asked, await asyncio.gather(*map(ask, asked)), strict=True))

    return {worker: found for worker, found in client.sync(ask_all).items() if found}


def _deciding(package: str, found: str) -> str:
    """Return what of a version must be the same: of Python its minor version, of packages all of it."""
    return ".".join(found.split(".")[:2]) if package == "python" else found
