"""What the groups of a store say of its maps is verified, too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr

import pipeline

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(params=["0.5", "0.4"])
def made(small: Path, request: pytest.FixtureRequest) -> Any:
    """A job whose store is made, with levels, in each version of OME-Zarr."""
    settings = (f"output.ome_zarr={request.param}", "output.pyramid=mean", "output.compression=zstd")
    job = pipeline.load("config.yaml", settings=settings)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    assert pipeline.verify(job, windows=1).passed
    return job


def scale(ome: dict[str, Any]) -> None:
    ome["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"][-1] *= 2


def label(ome: dict[str, Any]) -> None:
    ome["omero"]["channels"][0]["label"] = "another"


def fewer(ome: dict[str, Any]) -> None:
    ome["multiscales"][0]["datasets"].pop()


def window(ome: dict[str, Any]) -> None:
    ome["omero"]["channels"][0]["window"]["end"] = 3.0
    ome["note"] = "of somebody"


def changed(change: Change) -> None:
    group = zarr.open_group("maps.zarr/image/pool", mode="r+", use_consolidated=False)
    attributes = group.attrs.asdict()
    change(attributes.get("ome", attributes))
    group.attrs.put(attributes)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (scale, "multiscales[0].datasets[1].coordinateTransformations[0].scale["),
        (label, "omero.channels[0].label on"),
        (fewer, "multiscales[0].datasets on"),
    ],
)
def test_metadata_of_a_map_that_a_run_would_not_write_are_named(made: Any, change: Change, place: str) -> None:
    changed(change)
    found = pipeline.verify(made, windows=1)
    assert not found.passed
    (fault,) = found.metadata
    assert fault.startswith("maps.zarr/image/pool: its metadata are not what a run writes, from ")
    assert place in fault
    assert f"not as written: {fault}" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["metadata"] == [fault]


def test_what_viewers_show_and_what_somebody_has_added_is_let_be(made: Any) -> None:
    changed(window)
    assert pipeline.verify(made, windows=1).passed


@pytest.mark.parametrize("group", ["image", "image/pool"])
def test_a_group_that_cannot_be_opened_is_named(made: Any, group: str) -> None:
    (file,) = (path for name in ("zarr.json", ".zgroup") if (path := Path("maps.zarr", group, name)).exists())
    file.write_text("{")
    found = pipeline.verify(made, windows=1)
    assert not found.passed
    assert found.metadata[0].startswith(f"maps.zarr/{group}: its metadata cannot be read (")
