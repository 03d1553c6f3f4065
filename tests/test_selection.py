"""What the config selects of an image: the same bits as a run over what was cut out before, and in the right place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import ConfigError, FeatureError, InputError
from pipeline.storage.metadata import Placed, Window, describe

PIXELS = np.random.default_rng(11).integers(0, 256, (3, 4, 5, 40, 37)).astype(np.uint8)
SCALE, START = (60.0, 1.0, 2.0, 0.25, 0.5), (0.0, 0.0, 10.0, 100.0, -3.0)
NAMES = ["DAPI", "GFP", "RFP", "Cy5"]


AXES = [("t", "second"), ("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer")]
WINDOWS = [Window.of(0, 255)] * len(NAMES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    group = zarr.create_group(
        tmp_path / "i.zarr", attributes=describe("i", AXES, [Placed("0", SCALE, START)], NAMES, WINDOWS)
    )
    array = group.create_array("0", shape=PIXELS.shape, chunks=(1, 2, 2, 16, 16), dtype="u1")
    array[...] = PIXELS
    return tmp_path


def load(folder: Path, selection: dict[str, Any]) -> pipeline.Job:
    return pipeline.load(
        {
            "input": {"images": str(folder / "i.zarr"), **selection},
            "features": {"edge": {"rows": [[-1, 2, 0], [3, 4, -5]]}},
            "layers": [
                {
                    "type": "convolution",
                    "features": "edge",
                    "padding": "same",
                    "boundary": "reflect",
                    "channels": "each",
                },
                {"type": "pool", "window": 3, "stride": 2},
            ],
            "output": {"store": str(folder / "o.zarr"), "chunks": 4},
        }
    )


def placed(folder: Path) -> tuple[list[float], list[float]]:
    """Return scale and translation as the map's metadata say."""
    ome = zarr.open_group(folder / "o.zarr/i/pool", mode="r").attrs["ome"]
    steps = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]  # type: ignore[index,call-overload]
    return steps[0]["scale"], steps[1]["translation"]  # type: ignore[index,call-overload,return-value]


CASES: dict[str, tuple[dict[str, Any], tuple[Any, ...], tuple[int, ...]]] = {
    "nothing": ({}, np.s_[:, :, :, :, :], (0, 0, 0, 0)),
    "a channel by name": ({"channels": "RFP"}, np.s_[:, [2], :, :, :], (0, 0, 0, 0)),
    "channels in another order": ({"channels": ["Cy5", 0, "GFP"]}, np.s_[:, [3, 0, 1], :, :, :], (0, 0, 0, 0)),
    "a time": ({"t": 2}, np.s_[2:3, :, :, :, :], (2, 0, 0, 0)),
    "planes": ({"z": [1, 4], "t": [0, 2]}, np.s_[:2, :, 1:4, :, :], (0, 1, 0, 0)),
    "a region": ({"region": {"y": [5, 38], "x": [17, 37]}}, np.s_[:, :, :, 5:38, 17:], (0, 0, 5, 17)),
    "rows": ({"region": {"y": [16, 32]}}, np.s_[:, :, :, 16:32, :], (0, 0, 16, 0)),
    # Centres at 100 + 0.25 n and −3 + 0.5 n: 101.3 … 106 are 6 … 23, and −1.5 … 12 are 3 … 29.
    "micrometres": (
        {"region": {"y": [101.3, 106.0], "x": [-1.5, 12.0], "unit": "physical"}, "z": 4, "channels": [1]},
        np.s_[:, [1], 4:5, 6:24, 3:30],
        (0, 4, 6, 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_selection_is_an_image_of_its_own(folder: Path, case: str) -> None:
    selection, cut, first = CASES[case]
    job = load(folder, selection)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    made = zarr.open_array(folder / "o.zarr/i/pool/0", mode="r")[...]
    wanted = PIXELS[cut]
    assert made.shape[:3] == wanted.shape[:3]
    for t, z in np.ndindex(wanted.shape[0], wanted.shape[2]):
        np.testing.assert_array_equal(made[t, :, z], job.stack(wanted[t, :, z]))
    scale, translation = placed(folder)
    assert scale == pytest.approx([60, 1, 2, 0.5, 1.0])
    begin = [START[0] + SCALE[0] * first[0], 0, START[2] + SCALE[2] * first[1]]
    y, x = START[3] + SCALE[3] * (first[2] + 1.5), START[4] + SCALE[4] * (first[3] + 1)
    assert translation == pytest.approx([*begin, y, x])
    assert pipeline.verify(job).passed


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a channel's name": (
        {"channels": "DAPPI"},
        r"i\.zarr: input\.channels: there is no channel 'DAPPI'; did you mean 'DAPI'\?",
    ),
    "a channel's number": ({"channels": 4}, r"input\.channels: there is no channel 4; the image has 4, counted from 0"),
    "a channel twice": ({"channels": ["GFP", 1]}, r"input\.channels: channel 1 stands twice"),
    "a time": ({"t": 3}, r"input\.t: goes to 3; the image has 3, counted from 0"),
    "planes": ({"z": [2, 9]}, r"input\.z: goes to 8; the image has 5"),
    "pixels": ({"region": {"y": [30, 41]}}, r"input\.region\.y: 30 to 41 is not within the image, which has 40 pixels"),
    "micrometres": (
        {"region": {"x": [-9, 1], "unit": "physical"}},
        r"input\.region\.x: -9 to 1 micrometer .*centres lie at -3 to 15",
    ),
    "between centres": ({"region": {"y": [100.1, 100.2], "unit": "physical"}}, r"input\.region\.y: .*holds no pixel"),
    "a level": ({"level": 1}, r"input\.level: there is no level 1; the image has level 0 only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_there_is_refused_by_its_key(folder: Path, case: str) -> None:
    selection, words = WRONG[case]
    with pytest.raises(InputError, match=words):
        pipeline.plan(load(folder, selection))


def test_channels_of_one_label_are_told_apart_by_their_numbers(folder: Path) -> None:
    """Microscopes write such images: they are worked on, and each map's name says which channel it is of."""
    group = zarr.open_group(folder / "i.zarr")
    labels = ["DAPI", "GFP", "DAPI", "DAPI_0"]
    group.attrs.update({"ome": describe("i", AXES, [Placed("0", SCALE, START)], labels, WINDOWS)["ome"]})
    plan = pipeline.plan(load(folder, {}))
    assert plan.images[0].source.channels == ("DAPI_0_0", "GFP", "DAPI_2", "DAPI_0")
    assert "channels  DAPI_0_0, GFP, DAPI_2, DAPI_0" in str(plan)
    maps = plan.images[0].stack.operations[-1].maps
    assert maps == ("DAPI_0_0.edge", "GFP.edge", "DAPI_2.edge", "DAPI_0.edge")
    # The names are the same whatever is selected, and select.
    (image,) = pipeline.plan(load(folder, {"channels": ["DAPI_2", 0]})).images
    assert (image.source.channels, image.source.picks) == (("DAPI_2", "DAPI_0_0"), (2, 0))
    with pytest.raises(InputError, match=r"there is no channel 'DAPI'; did you mean 'DAPI_[02]'\?"):
        pipeline.plan(load(folder, {"channels": "DAPI"}))


def test_an_axis_that_the_image_lacks_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "i.zarr", data=PIXELS[0, 0, 0])
    with pytest.raises(InputError, match=r"input\.t: the image has no axis t"):
        pipeline.plan(load(tmp_path, {"t": 0}))


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"t": -1}, r"input\.t: expected an index from 0, or \[start, stop\]"),
        (
            {"z": [4, 4]},
            r"input\.z: expected an index from 0, or \[start, stop\] with start below stop; found \[4, 4\]",
        ),
        ({"channels": []}, r"input\.channels"),
        ({"region": {"y": [5, 2]}}, r"input\.region: y goes from 5 to 2; the first must be less"),
        ({"region": {"y": [0.5, 2]}}, r"input\.region: pixels are whole numbers; or give unit: physical"),
        ({"region": {"z": [0, 2]}}, r"input\.region\.z: unknown key"),
        ({"region": {"unit": "pixels"}}, r"input\.region\.unit: 'pixels' is not possible; did you mean 'pixel'\?"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(tmp_path: Path, selection: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, selection)


def test_a_region_reads_only_its_chunks(folder: Path) -> None:
    (image,) = pipeline.plan(
        load(folder, {"region": {"y": [16, 32], "x": [0, 16]}, "channels": 3, "t": 0, "z": 2})
    ).images
    assert image.source.extents == (16, 16)
    # One chunk of 16 × 16 pixels, and with them another channel and another plane.
    assert image.bytes_read == 16 * 16 * 2 * 2


CROP = {"y": 5, "x": 7, "height": 4, "width": 6}
CROPS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "the first plane": ({}, np.s_[0, :, 0]),
    "a plane": ({"t": 2, "z": 3}, np.s_[2, :, 3]),
    "channels": ({"channels": ["Cy5", 0], "z": 1}, np.s_[0, [3, 0], 1]),
    "a channel": ({"channels": "GFP"}, np.s_[0, [1], 0]),
}


def cut(folder: Path, **crop: Any) -> np.ndarray:
    layer = {"type": "convolution", "features": "cut"}
    config = {"input": {"images": "none"}, "layers": [layer], "output": {"store": "none"}}
    image = crop.pop("image", "i.zarr")
    job = pipeline.load({**config, "features": {"cut": {"crop": {"image": str(folder / image), **CROP, **crop}}}})
    return job.features["cut"]


@pytest.mark.parametrize("case", CROPS)
def test_a_crop_selects_as_the_input_does(folder: Path, case: str) -> None:
    selection, part = CROPS[case]
    wanted = PIXELS[part][:, 5:9, 7:13] / 127.5 - 1
    np.testing.assert_allclose(cut(folder, **selection), wanted, atol=1e-12)


def test_a_crop_of_a_level_is_in_its_pixels(folder: Path) -> None:
    levels = [Placed(name, (1.0, size, size), (0.0, 0.0, 0.0)) for name, size in (("0", 1.0), ("1", 2.0))]
    axes = [("c", None), ("y", None), ("x", None)]
    group = zarr.create_group(
        folder / "p.zarr", attributes=describe("p", axes, levels, ["a"], [Window.of(0, 255)], shrunk="mean")
    )
    group.create_array("0", data=PIXELS[0, :1, 0])
    group.create_array("1", data=PIXELS[1, :1, 1, :20, :18])
    wanted = PIXELS[1, :1, 1, 5:9, 7:13] / 127.5 - 1
    np.testing.assert_allclose(cut(folder, image="p.zarr", level=1), wanted, atol=1e-12)
    with pytest.raises(FeatureError, match=r"feature 'cut': .*p\.zarr: crop\.level: there is no level 2"):
        cut(folder, image="p.zarr", level=2)
    with pytest.raises(FeatureError, match=r"feature 'cut': .*p\.zarr: crop\.z: the image has no axis z"):
        cut(folder, image="p.zarr", z=0)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"channels": "Nope"}, r"crop\.channels: there is no channel 'Nope'; valid: Cy5, DAPI, GFP, RFP"),
        ({"z": 5}, r"crop\.z: goes to 5; the image has 5, counted from 0"),
        ({"t": 3}, r"crop\.t: goes to 3; the image has 3"),
        ({"level": 1}, r"crop\.level: there is no level 1"),
    ],
)
def test_a_crop_of_what_is_not_there_names_the_feature(folder: Path, selection: dict[str, Any], words: str) -> None:
    with pytest.raises(FeatureError, match=rf"features\.cut: feature 'cut': .*i\.zarr: {words}"):
        cut(folder, **selection)


def test_a_crop_has_one_plane(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.cut\.crop\.z: should be an integer; found \[0, 2\]"):
        cut(folder, z=[0, 2])


@pytest.mark.parametrize("cluster", ["serial", "threads"])
def test_a_region_between_chunks_is_made_block_by_block_as_the_image_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    image = np.random.default_rng(4).integers(0, 255, (300, 300), np.uint8)
    zarr.create_array("i.zarr", data=image, chunks=(32, 32))
    zarr.create_array("part/i.zarr", data=image[5:290, 7:283], chunks=(32, 32))
    found = []
    for given in ({"images": "i.zarr", "region": {"y": [5, 290], "x": [7, 283]}}, {"images": "part/i.zarr"}):
        config = {
            "input": given,
            "features": {"edge": {"rows": [[1, -2, 4], [0, 3, 5], [-7, 1, 2]]}},
            "layers": [{"type": "convolution", "features": ["edge"]}],
            "output": {"store": f"{len(found)}.zarr", "chunks": 32},
        }
        report = pipeline.run(pipeline.plan(pipeline.load(config)), cluster)
        assert (report.complete, report.tasks) == (True, 81), report.failed
        found.append(zarr.open_array(f"{len(found)}.zarr/i/convolution/0", mode="r")[:])
    assert np.array_equal(*found)
