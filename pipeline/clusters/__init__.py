"""A file a kind of cluster: what a user may say of it, and how it is started. All are found here by their type."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from distributed import Client

from pipeline.clusters.base import Manager
from pipeline.clusters.open import Open
from pipeline.config import checked, load
from pipeline.errors import ClusterError, ConfigError, nearest

_FOUND = [vars(import_module(f"{__name__}.{module.name}")).values() for module in iter_modules(__path__)]

MANAGERS: dict[str, type[Manager]] = {
    kind: found
    for names in _FOUND
    for found in names
    if isinstance(found, type) and issubclass(found, Manager) and (kind := found.kind())
}
"""The kinds of cluster by the ``type`` that a file gives."""

EXPECTED = (
    "local, threads, serial, an address such as tcp://host:8786, or a YAML file such as those in configs/clusters"
)


def manager(cluster: str | Client) -> Manager:
    """Return what ``--cluster`` names: ``local``, ``threads``, the address of a scheduler, or a YAML file.

    From Python it may also be a client. Raises `ClusterError` where it is none of these, and `ConfigError` for a file
    that says what cannot be.
    """
    if isinstance(cluster, Client):
        return Open.of(cluster)
    if not isinstance(cluster, str):
        raise ClusterError(f"cluster: expected {EXPECTED}, or a distributed.Client; found a {type(cluster).__name__}")
    if cluster in ("local", "threads"):
        return MANAGERS[cluster].model_validate({"type": cluster})
    if cluster.endswith((".yaml", ".yml")):
        return _read(Path(cluster))
    if ":" in cluster:
        return MANAGERS["address"].model_validate({"type": "address", "address": cluster})
    raise ClusterError(f"--cluster {cluster}: expected {EXPECTED}")


def memory_of(cluster: str, asked: str | int | None) -> str | int | None:
    """Return what a worker may hold: what is asked, or what the cluster's file says; None where neither says it."""
    return asked if asked is not None or cluster == "serial" else manager(cluster).memory


def _read(path: Path) -> Manager:
    document = load(path)
    if not isinstance(document.data, dict) or "type" not in document.data:
        raise ConfigError(
            f"{path}: expected the key 'type', one of {', '.join(sorted(MANAGERS))}, and what belongs to it"
        )
    kind = document.data["type"]
    model = MANAGERS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ConfigError(
            f"{document.where(('type',))}: there is no cluster of type {kind!r}; {nearest(str(kind), MANAGERS)}"
        )

    def keys(place: tuple[str | int, ...], value: Any) -> Any:
        del value
        return model.inside(place)

    return checked(document, model, keys)
