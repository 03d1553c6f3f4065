"""What stands at a path: an image Haloflow can read, or a store that it made."""

from collections.abc import Mapping
from typing import Any

import zarr

from pipeline.describe import pixels, size, stored_as, times
from pipeline.errors import HaloflowError, InputError
from pipeline.kinds import images_of
from pipeline.storage.findings import TABLES
from pipeline.storage.images import RESERVED, open_image
from pipeline.storage.place import Place
from pipeline.storage.tablefiles import noted_in


def inspect(path: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what stands at a path as plain data; raises `InputError` where it is neither image nor store."""
    place = Place.of(path, options)
    record = _record(place)
    if record is None:
        source = open_image(place)
        return {
            "kind": "image",
            "path": path,
            "channels": list(source.channels),
            "planes": {axis.name: axis.extent for axis in source.outer},
            "extents": list(source.extents),
            "chunks": list(source.chunks),
            "dtype": source.dtype,
            "scale": list(source.scale),
            "translation": list(source.translation),
            "units": list(source.units),
        }
    try:
        return _store(path, record)
    except (AttributeError, KeyError, StopIteration, TypeError):
        raise InputError(f"{place}: its record of the run is damaged") from None


def _store(path: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return what the record of a run says of its store; raises whatever a damaged one makes Python raise."""
    maps = [
        {"image": image["name"], "planes": image.get("planes", {}), **kept, "channels": _channels(image, kept["layer"])}
        for image in images_of(record["plan"])
        for kept in image["kept"]
    ]
    return {
        "kind": "store",
        "path": path,
        "complete": record["complete"],
        "version": record["version"],
        "maps": maps,
        "inputs": record["plan"]["inputs"],
        "made_as": record["plan"]["store"],
        "tables": [str(Place.of(path.rstrip("/")) / key) for key in _tables(record)],
        "report": {**report} if (report := record.get("report")) else None,
    }


def _tables(record: dict[str, Any]) -> list[str]:
    """Return the keys of a store's tables; stores of old name them in their report alone, where they stood then."""
    told = (record.get("report") or {}).get("tables", [])
    return list(noted_in(record)) or [f"{TABLES}/{path.rpartition('/')[2]}" for path in told]


def _record(place: Place) -> dict[str, Any] | None:
    if place.is_local and not (place.exists() and place.path.is_dir()):
        return None
    try:
        node = zarr.open(place.store(), mode="r")
    except HaloflowError:
        raise
    except Exception:  # noqa: BLE001 - open_image says what is wrong with it
        return None
    record = dict(node.attrs).get(RESERVED) if isinstance(node, zarr.Group) else None
    if record is None:
        return None
    if (
        not isinstance(record, dict)
        or not {"plan", "complete", "version"} <= record.keys()
        or (not isinstance(record["plan"], dict) or not {"images", "inputs"} <= record["plan"].keys())
    ):
        raise InputError(f"{place}: its record of the run is damaged")
    return record


def _channels(image: dict[str, Any], layer: str) -> list[str]:
    return next(list(la["maps"]) for la in image["layers"] if la["name"] == layer)


def inspect_text(found: dict[str, Any]) -> str:
    """Say what `inspect` found."""
    if found["kind"] == "image":
        pixel = times_float(found["scale"], found["units"])
        names = ", ".join(found["channels"][:8])
        return (
            f"{found['path']}: an image of {pixels(found['planes'], len(found['channels']), found['extents'])} "
            f"{found['dtype']}, chunks {times(found['chunks'])}, pixel {pixel}; channels {names}"
        )
    state = "complete" if found["complete"] else "NOT complete"
    lines = [f"{found['path']}: made by haloflow {found['version']}, {state}"]
    lines += [
        f"  {m['image']}/{m['layer']}  {pixels(m['planes'], len(m['channels']), m['extents'])} {m['dtype']}, "
        f"{stored_as(m)}; maps {', '.join(m['channels'][:8])}"
        for m in found["maps"]
    ]
    lines += [f"  table {table}" for table in found["tables"]]
    if report := found["report"]:
        lines.append(
            f"  {report['done']} of {report['tasks']} tasks in {report['seconds']} s, read "
            f"{size(report['bytes_read'])}, wrote {size(report['bytes_written'])}"
        )
    return "\n".join(lines)


def times_float(scale: list[float], units: list[str | None]) -> str:
    """Write a pixel's size.

    >>> times_float([0.5, 0.5], ["micrometer", "micrometer"])
    '0.5 micrometer × 0.5 micrometer'
    """
    return " × ".join(f"{s:g} {u}" if u else f"{s:g}" for s, u in zip(scale, units, strict=True))
