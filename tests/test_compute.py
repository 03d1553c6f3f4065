"""What tasks compute: how much memory the stored numbers of a map keep."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import pipeline
from pipeline.execute.compute import compute
from pipeline.forecast import Group
from pipeline.geometry import whole
from pipeline.given import Raw

LAYERS = [
    {"type": "convolution", "name": "match", "features": "edge", "padding": "same"},
    {"type": "convolution", "name": "tall", "features": "bar", "padding": "same"},
]


def test_stored_numbers_keep_no_more_than_themselves(tmp_path: Path) -> None:
    """A tile of the first map is made with hundreds of rows more, which the second one needs."""
    image = np.random.default_rng(5).normal(size=(2000, 64)).astype("f4")
    zarr.create_array(str(tmp_path / "i.zarr"), data=image, chunks=(64, 64))
    config: dict[str, Any] = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "features": {"edge": {"rows": [[-1, 2], [3, 4]]}, "bar": {"rows": [[1]] * 400}},
        "layers": LAYERS,
        "output": {"store": str(tmp_path / "o.zarr"), "layers": ["match", "tall"], "chunks": 64},
    }
    plan = pipeline.plan(pipeline.load(config)).images[0]
    groups = (Group(0, 2, (64, 64), plan.task.groups[0].work),)
    plan = replace(plan, task=replace(plan.task, groups=groups))
    regions = [whole(k.array.extents) for k in plan.made]
    walk = plan.stack.walk(plan.wanted(regions), plan.extents)
    made = compute(plan, Raw([(whole(image.shape), image[None])], plan.scale), walk, regions, regions, False)
    for one in made:
        assert one.stored
        units = one.stored.units
        bases = {id(base): base.nbytes for base in (u if u.base is None else u.base for u in units)}
        assert sum(bases.values()) == sum(u.nbytes for u in units)
