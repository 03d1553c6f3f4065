"""Verify what the groups of a store say of its maps, against what a run would write."""

import json
from collections.abc import Iterator
from typing import Any

import zarr

from pipeline.errors import HaloflowError, explain
from pipeline.planning import ImagePlan, Plan
from pipeline.storage.identity import differences
from pipeline.storage.maps import MapArray
from pipeline.storage.metadata import Window
from pipeline.storage.place import Place
from pipeline.storage.target import recorded

ASIDE = ("kernel", "format", "versions")
"""What of a run's identity the float64 reference hangs on in no way."""


def faults(store: Place, image: ImagePlan) -> Iterator[str]:
    """Give what is wrong with the groups of an image and of its kept maps, each named by its path.

    What should be shown of a channel is left out, as it hangs on the pixels; and what else anybody has put there.
    """
    if not image.kept:
        return
    wanted = {image.source.name: dict[str, Any](), **{kept.array.group: _attributes(kept.array) for kept in image.kept}}
    for path, attributes in wanted.items():
        try:
            found = zarr.open_group((store / path).store(), mode="r").attrs.asdict()
        except HaloflowError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever damaged metadata make zarr raise
            yield f"{store / path}: its metadata cannot be read ({explain(error)})"
            continue
        if (other := next(_others(attributes, found), None)) is not None:
            yield (
                f"{store / path}: its metadata are not what a run writes, from {other} on; 'haloflow run --overwrite' "
                "writes them anew"
            )


def other_config(plan: Plan) -> list[str]:
    """Say in what the config that made a store differs from the plan's: what is wrong with the maps may be that."""
    made, mine = (recorded(plan.store) or {}).get("identity", {}), plan.identity
    old, new = ({key: value for key, value in one.items() if key not in ASIDE} for one in (made, mine))
    return differences(old, new) if old else []


def _attributes(m: MapArray) -> dict[str, Any]:
    """Return the attributes of a map's group as they are read, without what should be shown of a channel."""
    made: dict[str, Any] = json.loads(json.dumps(m.attributes([Window.of(0.0, 1.0)] * len(m.channels))))
    for channel in made.get("ome", made)["omero"]["channels"]:
        del channel["window"]
    return made


def _others(wanted: Any, found: Any, at: str = "") -> Iterator[str]:
    """Give the places at which something else is found than what is wanted; what is there besides is let be."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from _others(value, found.get(key), f"{at}.{key}".lstrip("."))
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _others(one, other, f"{at}[{number}]")
    elif wanted != found:
        yield at
