"""What verify passes, and what it does not."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import OutputError
from pipeline.storage.lock import acquire

RNG = np.random.default_rng()
"""Set for each test, so that none hangs on those before it."""


def job(image: np.ndarray, *layers: dict[str, Any], features: dict[str, Any] | None = None, **output: Any) -> Any:
    zarr.create_array("i.zarr", data=image, chunks=(16, 16), overwrite=True)
    made = pipeline.load(
        {
            "input": {"images": "i.zarr"},
            "features": features or {},
            "layers": list(layers),
            "output": {"store": "o.zarr", **output},
        }
    )
    assert pipeline.run(pipeline.plan(made), "serial", overwrite=True).complete
    return made


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(11))


@pytest.mark.parametrize("match", ["mean", "sum"])
@pytest.mark.parametrize("value", [37, 100, 200])
def test_a_sum_that_cancels_over_a_flat_image_is_right(match: str, value: int) -> None:
    weights = RNG.normal(size=(7, 7))
    weights -= weights.mean()
    features = {"flat": {"rows": weights.tolist()}}
    layer = {"type": "convolution", "features": "flat", "match": match}
    assert pipeline.verify(job(np.full((60, 60), value, np.uint8), layer, features=features)).passed


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint16"])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_every_stored_type_is_right_within_its_rounding(dtype: str, scale: float) -> None:
    image = RNG.normal(size=(60, 60)).astype(np.float32)
    image[3, 4], image[50, 2], image[0, 0], image[59, 59] = np.nan, np.inf, -np.inf, -0.0
    made = job(image, {"type": "normalise", "scale": scale}, {"type": "pool", "op": "mean"}, dtype=dtype)
    found = pipeline.verify(made)
    assert found.passed, str(found)


@pytest.mark.parametrize("wrong", [-5.0, -np.inf, np.nan])
def test_what_should_be_infinite_and_is_not_is_found(wrong: float) -> None:
    made = job(np.full((60, 60), np.inf, np.float32), {"type": "normalise"})
    assert pipeline.verify(made).passed
    zarr.open_array("o.zarr/i/normalise/0", mode="r+")[:, 59, 59] = wrong
    found = pipeline.verify(made)
    assert not found.passed
    assert found.misplaced == 1


def test_a_small_deviation_at_a_corner_is_found() -> None:
    made = job(RNG.normal(size=(60, 60)).astype(np.float32), {"type": "normalise", "offset": 0.5})
    stored = zarr.open_array("o.zarr/i/normalise/0", mode="r+")
    stored[:, 0, 59] = stored[:, 0, 59] + 2e-4
    found = pipeline.verify(made)
    assert not found.passed
    assert 2e-5 < found.worst < 2e-4
    assert found.where == "i/normalise y [0, 24), x [36, 60)"


NODATA = np.float32(-3.4e38)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("after", [[], ["relu"], ["tanh"], ["pool"], ["softmax"]])
def test_sums_that_float32_cannot_hold_may_be_anything_and_others_are_right(after: list[str], dtype: str) -> None:
    image = RNG.normal(size=(120, 120)).astype(np.float32)
    image[40:60, 50:70], image[100, 20] = NODATA, -NODATA
    features = {name: {"rows": RNG.normal(size=(3, 3)).tolist()} for name in "ab"}
    layers = [{"type": "convolution", "features": ["a", "b"]}, *({"type": kind} for kind in after)]
    found = pipeline.verify(job(image, *layers, features=features, dtype=dtype), windows=40)
    assert found.passed, str(found)


@pytest.mark.parametrize("kernel", ["numba", "winograd", "fft"])
def test_nodata_hides_nothing_of_windows_without(kernel: str) -> None:
    image = RNG.normal(size=(400, 400)).astype(np.float32)
    image[300:310, 320:] = NODATA
    made = job(
        image, {"type": "convolution", "features": "a"}, features={"a": {"rows": RNG.normal(size=(3, 3)).tolist()}}
    )
    assert pipeline.run(pipeline.plan(made, kernel=kernel), "serial", overwrite=True).complete
    assert pipeline.verify(made, windows=40).passed
    stored = zarr.open_array("o.zarr/i/convolution/0", mode="r+")
    for at in ((3, 5), (300, 390)):  # the one far from nodata, the other beside it, in a window whose sums are vast
        stored[0, *at] = stored[0, *at] + np.float32(1e-3)
        found = pipeline.verify(made, windows=40)
        assert (found.passed, found.where) == (False, "i/convolution y [0, 24), x [0, 24)")


def test_windows_of_nothing_but_zero_have_the_scale_of_others() -> None:
    image = np.zeros((60, 60), np.float32)
    image[:5, :5] = RNG.normal(size=(5, 5)) * 1e-6
    made = job(image, {"type": "relu"})
    assert pipeline.verify(made).passed
    zarr.open_array("o.zarr/i/relu/0", mode="r+")[:, 59, 59] = 5e-6
    assert not pipeline.verify(made).passed


def test_no_deviation_is_told_of_maps_that_are_not_kept() -> None:
    image = RNG.normal(size=(30, 30)).astype(np.float32)
    kept = pipeline.verify(job(image, {"type": "relu"}, summaries={}, layers="relu"))
    assert re.search(r"recomputed in float64; the largest deviation is 0 of the map's scale", str(kept))
    found = pipeline.verify(job(image, {"type": "relu"}, summaries={}))
    assert found.passed
    told = r"verified: o.zarr: \d+ windows, \d+ pixels recomputed in float64 for the tables; no maps are kept\nchecked"
    assert re.match(told, str(found)), str(found)
    assert found.to_dict()["maps"] == 0


@pytest.mark.parametrize("tables", [True, False])
def test_an_image_that_cannot_be_looked_at_is_told(tables: bool) -> None:
    for name in "ab":
        zarr.create_array(f"{name}.zarr", data=RNG.normal(size=(20, 20)).astype(np.float32))
    output = {"detections": {"threshold": 0, "format": "csv"}} if tables else {}
    config = {"input": {"images": ["a.zarr", "b.zarr"]}, "layers": [{"type": "relu"}]}
    made = pipeline.load({**config, "output": {"store": "o.zarr", **output}})
    assert pipeline.run(pipeline.plan(made), "serial").complete
    assert pipeline.verify(made).unchecked == ()
    Path("b.zarr/zarr.json").unlink()
    found = pipeline.verify(made)
    assert found.passed, str(found)
    assert re.search(r"not checked: what is of b, which cannot be run: .*b\.zarr", str(found)), str(found)


def test_another_run_s_store_is_refused() -> None:
    image = RNG.normal(size=(60, 60)).astype(np.float32)
    job(image, {"type": "pool"})
    other = {
        "input": {"images": "i.zarr"},
        "layers": [{"type": "pool"}],
        "output": {"store": "o.zarr", "dtype": "int8"},
    }
    with pytest.raises(OutputError, match=r"is 1 × 30 × 30 float32; the config makes 1 × 30 × 30 int8"):
        pipeline.verify(pipeline.load(other))


def test_matches_of_little_contrast_are_right_within_the_rounding_of_their_pixels_and_no_further() -> None:
    image = (60_000 + np.rint(RNG.normal(0, 9, (120, 120)))).astype(np.uint16)
    features = {"spot": {"rows": RNG.normal(size=(5, 5)).tolist()}}
    spot = {"type": "convolution", "features": "spot"}
    for layers in ([{**spot, "match": "ncc"}], [spot, {**spot, "match": "ncc"}, {"type": "relu"}]):
        made = job(image, *layers, features=features)
        found = pipeline.verify(made)
        assert found.passed, str(found)
        array = zarr.open_array(f"o.zarr/i/{made.stack.names[-1]}/0", mode="r+")
        array[0, 0, 0] += 0.05
        assert not pipeline.verify(made).passed


FAINT = [{"type": "convolution", "features": "spot"}, {"type": "convolution", "features": "spot", "match": "ncc"}]


@pytest.mark.parametrize(
    "after",
    [
        (),
        ({"type": "abs"}, {"type": "pool", "window": 3, "stride": 2}),
        ({"type": "pool", "op": "mean"}, {"type": "convolution", "features": "spot"}),
        ({"type": "pool", "op": "min", "window": 2, "stride": 3}, {"type": "threshold", "at": 0.01}),
        ({"type": "convolution", "name": "again", "features": "spot", "match": "ncc"}, {"type": "softmax"}),
    ],
    ids=lambda layers: "-".join(layer["type"] for layer in layers) or "nothing",
)
def test_a_wrong_pixel_of_ordinary_contrast_beside_a_faint_patch_is_found(after: tuple[dict[str, Any], ...]) -> None:
    """Beside an offset of 50,000 a patch of ± 0.1 has some tens of float32's steps, and what it matches is unsure."""
    image = RNG.normal(0, 2e4, (60, 60)).astype(np.float32)
    image[8:22, 8:22] = 50_000 + RNG.normal(0, 0.1, (14, 14))
    features = {"spot": {"rows": RNG.normal(size=(3, 3)).tolist()}}
    made = job(image, *FAINT, *after, features=features)
    assert pipeline.verify(made).passed
    array = zarr.open_array(f"o.zarr/i/{made.stack.names[-1]}/0", mode="r+")
    array[0, 0, 0] += 0.01
    found = pipeline.verify(made)
    assert not found.passed
    assert "y [0, " in found.where
    assert ", x [0, " in found.where


@pytest.mark.parametrize("image", ["few levels", "offset", "steps", "infinite"])
@pytest.mark.parametrize("kernel", ["numpy", "numba", "fft", "onnxruntime"])
def test_honest_runs_pass_however_little_contrast_there_is(image: str, kernel: str) -> None:
    y, x = np.mgrid[:50, :50]
    pixels = {
        "few levels": (60_000 + RNG.integers(0, 2, (50, 50))).astype(np.uint16),
        "offset": (1e3 + RNG.normal(0, 1e-2, (50, 50))).astype(np.float32),
        "steps": (y // 19 * 60 + x // 23 * 30).astype(np.uint8),
        "infinite": np.where((y == 20) & (x == 20), np.inf, RNG.normal(size=(50, 50))).astype(np.float32),
    }[image]
    balanced = RNG.normal(size=(5, 5))
    features = {"spot": {"rows": np.abs(balanced).tolist()}, "flat": {"rows": (balanced - balanced.mean()).tolist()}}
    zarr.create_array("i.zarr", data=pixels, chunks=(16, 16))
    before = {"type": "convolution", "features": ["spot", "flat"], "padding": "same", "boundary": "nearest"}
    told = {
        "input": {"images": "i.zarr"},
        "features": features,
        "layers": [before, {"type": "pool", "op": "mean", "stride": 1}, {**FAINT[1], "channels": "each"}],
        "output": {"store": "o.zarr"},
    }
    made = pipeline.load(told)
    assert pipeline.run(pipeline.plan(made, kernel=kernel), "serial").complete
    found = pipeline.verify(made)
    assert found.passed, str(found)


@pytest.mark.parametrize(
    "layer",
    [{"type": "clip", "low": -0.5, "high": 0.7}, {"type": "tanh"}, {"type": "threshold", "at": 0.3, "above": 1.0}],
    ids=lambda layer: layer["type"],
)
def test_what_is_small_beside_the_sums_it_is_cut_from_passes_within_their_rounding_and_no_further(
    layer: dict[str, Any],
) -> None:
    image = (1e3 + RNG.normal(0, 0.1, (60, 60))).astype(np.float32)
    weights = RNG.normal(size=(5, 5))
    features = {"edge": {"rows": (weights - weights.mean()).tolist()}}
    made = job(image, {"type": "convolution", "features": "edge", "match": "sum"}, layer, features=features)
    found = pipeline.verify(made)
    assert found.passed, str(found)
    array = zarr.open_array(f"o.zarr/i/{layer['type']}/0", mode="r+")
    at = np.abs(np.abs(array[0, :24, :24]) - 0.3).argmax()  # far from where a threshold jumps
    array[0, at // 24, at % 24] += 0.1
    assert not pipeline.verify(made).passed


def test_planes_smaller_than_a_window_are_each_looked_at() -> None:
    planes = RNG.normal(size=(12, 10, 6)).astype(np.float32)
    zarr.create_array("i.zarr", data=planes, chunks=(1, 10, 6), dimension_names=("z", "y", "x"))
    made = pipeline.load({"input": {"images": "i.zarr"}, "layers": [{"type": "relu"}], "output": {"store": "o.zarr"}})
    assert pipeline.run(pipeline.plan(made), "serial").complete
    assert pipeline.verify(made).windows >= 9
    zarr.open_array("o.zarr/i/relu/0", mode="r+")[:, 1:] = 99
    assert not pipeline.verify(made).passed


@pytest.mark.parametrize("features", ["centre", "edge"])
@pytest.mark.parametrize(
    "after", [{"type": "clip", "low": -1, "high": 1}, {"type": "sigmoid"}], ids=lambda a: a["type"]
)
def test_what_stands_beside_large_pixels_passes_within_what_the_kernel_makes_of_it(
    features: str, after: dict[str, Any]
) -> None:
    """Winograd's kernel takes the pixels under weights of 0 into its sums and out again: their rounding stays."""
    image = RNG.normal(size=(60, 60)).astype(np.float32)
    image[RNG.random(image.shape) < 0.02] *= 1e5
    part = {"centre": np.s_[1:2, 1:2], "edge": np.s_[:, 2:]}[features]
    named = {}
    for n in range(16):
        weights = np.zeros((16, 3, 3))
        weights[n][part] = 1
        named |= {f"one{n}": {"rows": RNG.normal(size=(3, 3)).tolist()}, f"two{n}": {"rows": weights.tolist()}}
    layers = [
        {"type": "convolution", "features": [name for name in named if of in name], "match": "sum"}
        for of in ("one", "two")
    ]
    made = job(image, *layers, after, features=named)
    assert pipeline.plan(made).images[0].stack.choices[1].backend == "winograd"
    found = pipeline.verify(made)
    assert found.passed, str(found)
    array = zarr.open_array(f"o.zarr/i/{after['type']}/0", mode="r+")
    array[0, :8, :8] += 0.1
    assert not pipeline.verify(made).passed


def test_a_store_that_a_run_has_just_begun_is_not_taken_for_another_configs(tmp_path: Path) -> None:
    zarr.create_array("i.zarr", data=np.ones((4, 4), np.uint8))
    made = pipeline.load({"input": {"images": "i.zarr"}, "layers": [{"type": "relu"}], "output": {"store": "o.zarr"}})
    lock = acquire(pipeline.plan(made).store)
    try:
        with pytest.raises(OutputError, match=r"o.zarr says of no run that has made anything: .* 'haloflow status o.z"):
            pipeline.verify(made)
    finally:
        lock.release("interrupted")
