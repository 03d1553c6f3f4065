"""The Python interface, taken in the wrong order."""

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import StackError


@pytest.mark.parametrize(
    ("call", "given", "words"),
    [
        (pipeline.plan, "config.yaml", r"expected a job, as pipeline.load\(config\) gives it, not str"),
        (pipeline.verify, {}, r"expected a job, as pipeline.load\(config\) gives it, not dict"),
        (pipeline.load, 3, "expected a config, the path of a YAML file or a mapping, not int"),
        (pipeline.run, "config.yaml", r"expected a plan, as pipeline.plan\(job\) gives it, not str"),
    ],
)
def test_what_is_given_in_place_of_a_job_or_a_plan_is_named(call, given, words):
    with pytest.raises(TypeError, match=words):
        call(given)


@pytest.mark.parametrize("layer", [0, "", "reul"])
def test_a_layer_goes_by_its_name(layer):
    config = {"input": {"images": "i.zarr"}, "layers": [{"type": "relu"}], "output": {"store": "o.zarr"}}
    stack = pipeline.load(config).stack
    with pytest.raises(StackError, match=f"there is no layer '{layer}'.*relu"):
        stack(np.ones((4, 4), np.uint8), layer=layer)


def test_what_python_takes_for_true_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"input": {"images": "i.zarr"}, "layers": [{"type": "relu"}], "output": {"store": "o.zarr"}}
    zarr.create_array("i.zarr", data=np.ones((4, 4), np.uint8), chunks=(4, 4))
    plan = pipeline.plan(pipeline.load(config))
    for name in ("overwrite", "resume"):
        with pytest.raises(TypeError, match=f"{name}: expected True or False, not 'no'"):
            pipeline.run(plan, "serial", **{name: "no"})
        with pytest.raises(TypeError, match=f"{name}: expected True or False, not 1"):
            pipeline.ingest("i.npy", "i2.zarr", **{name: 1})
    with pytest.raises(TypeError, match="overwrite: expected True or False, not 'no'"):
        pipeline.export("i.zarr", "i.npy", overwrite="no")
    with pytest.raises(TypeError, match="overwrite: expected True or False, not 'no'"):
        pipeline.fit(config, "labels.csv", "votes.yaml", overwrite="no")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.zarr"]
