"""A plan in words: what it says of a job."""

import re

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.execute import account

LAYERS = [
    {"type": "convolution", "features": ["f"]},
    {"type": "relu"},
    {"type": "pool", "window": 2, "stride": 2},
    {"type": "sigmoid"},
]


def job(folder, image, **output):
    return pipeline.load(
        {
            "input": {"images": str(image)},
            "features": {"f": "#.#\n..#\n#.."},
            "layers": LAYERS,
            "output": {"store": str(folder / "o.zarr"), "layers": ["sigmoid"], **output},
        }
    )


@pytest.mark.parametrize(
    ("kept", "kernel", "told"),
    [
        (["sigmoid"], "winograd", ["winograd", *["winograd, with convolution"] * 2, "numpy"]),
        (["relu", "sigmoid"], "winograd", ["winograd", "winograd, with convolution", "numpy", "numpy"]),
        (["sigmoid"], "numba", ["numba", "numba", "numba", "numpy"]),
    ],
)
def test_a_layer_that_another_ones_kernel_makes_is_told_with_it(tmp_path, kept, kernel, told):
    zarr.save_array(tmp_path / "i.zarr", np.zeros((16, 16), np.uint8))
    plan = pipeline.plan(job(tmp_path, tmp_path / "i.zarr", layers=kept), kernel=kernel)
    lines = str(plan).splitlines()
    rows = [re.split(r" {2,}", line.removeprefix("  layers").strip()) for line in lines]
    found = {row[0]: row[1] for row in rows if len(row) > 4}
    assert [found[layer["type"]] for layer in LAYERS] == told


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        (
            {"scale_factor": 0.25, "add_offset": 7, "missing_value": -9},
            "(scale_factor 0.25, add_offset 7, missing_value -9)",
        ),
        ({"add_offset": 0.5, "_FillValue": "AAAAAAAA+H8="}, "(add_offset 0.5)"),
        ({"scale_factor": 2.0}, "(scale_factor 2)"),
        ({"scale_factor": 1.0, "add_offset": 0, "missing_value": 0}, None),
        ({"scale_factor": "2", "add_offset": 10**400, "_FillValue": [1]}, None),
    ],
)
def test_numbers_that_stand_for_others_are_told(tmp_path, attributes, told):
    array = zarr.create_array(tmp_path / "i.zarr", shape=(16, 16), dtype="i2", attributes=attributes)
    array[:] = 1
    plan = pipeline.plan(job(tmp_path, tmp_path / "i.zarr"))
    notes = plan.to_dict()["images"][0]["notes"]
    assert (told is not None) == bool(notes)
    assert all(told in note and f"  note      {note}" in str(plan).splitlines() for note in notes)


@pytest.mark.parametrize(("dtype", "notes"), [("int16", 1), ("float32", 0)])
def test_maps_of_scaled_integers_are_told_when_they_are_an_input(tmp_path, dtype, notes):
    zarr.save_array(tmp_path / "i.zarr", np.ones((16, 16), np.uint8))
    output = {"dtype": dtype, "range": [0, 9]} if dtype == "int16" else {}
    pipeline.run(pipeline.plan(job(tmp_path, tmp_path / "i.zarr", **output)), "serial")
    again = job(tmp_path, tmp_path / "o.zarr/i/sigmoid", store=str(tmp_path / "p.zarr"))
    assert len(pipeline.plan(again).images[0].notes) == notes


def test_a_run_says_at_its_end_what_its_images_note_each_once(tmp_path, monkeypatch):
    for name, scale in (("a", 2.0), ("b", 2.0), ("c", 0.5), ("d", 0.25)):
        array = zarr.create_array(tmp_path / f"in/{name}.zarr", shape=(16, 16), dtype="i2")
        array.attrs["scale_factor"] = scale
        array[:] = 1
    monkeypatch.setattr(account, "NOTES", 2)
    report = pipeline.run(pipeline.plan(job(tmp_path, tmp_path / "in/*.zarr")), "serial")
    folder = tmp_path / "in"
    said = [
        (f"{folder / 'a.zarr'} and 1 other: ", "(scale_factor 2)"),
        (f"{folder / 'c.zarr'}: ", "(scale_factor 0.5)"),
    ]
    assert len(report.notes) == len(said)
    for note, (images, numbers) in zip(report.notes, said, strict=True):
        assert note.startswith(images)
        assert numbers in note
        assert f"note: {note}" in str(report).splitlines()
    assert report.to_dict()["notes"] == list(report.notes)


def test_a_stride_beyond_the_window_has_no_halo_and_one_shard_is_one(tmp_path):
    image = zarr.create_array(tmp_path / "i.zarr", shape=(64, 64), shards=(32, 32), chunks=(16, 16), dtype="uint8")
    image[:32] = image[32:, :32] = 1
    config = {
        "input": {"images": str(tmp_path / "i.zarr")},
        "layers": [{"type": "pool", "window": 2, "stride": 5}],
        "output": {"store": str(tmp_path / "o.zarr")},
    }
    plan = pipeline.plan(pipeline.load(config))
    assert "  halo      0 × 0 input pixels" in str(plan)
    assert "1 shard is not stored: the fill value, 0" in str(plan)
