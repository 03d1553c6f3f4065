"""The levels of a pyramid are verified, too: each against the one before."""

from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import OutputError
from tests.test_verification import RNG, job


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("shrink", ["mean", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_levels_of_a_pyramid_are_verified_too(shrink: str, dtype: str) -> None:
    image = RNG.normal(size=(101, 67)).astype(np.float32)
    image[50, 10:12] = np.nan, np.inf
    made = job(image, {"type": "relu"}, chunks=16, pyramid=shrink, dtype=dtype)
    found = pipeline.verify(made)
    assert found.passed, found
    assert found.windows > pipeline.verify(job(image, {"type": "relu"}, chunks=16, dtype=dtype)).windows


def test_a_level_that_is_not_what_the_one_before_makes_does_not_pass() -> None:
    made = job(RNG.normal(size=(101, 67)).astype(np.float32), {"type": "relu"}, chunks=16, pyramid="mean")
    level = zarr.open_array("o.zarr/i/relu/2", mode="r+")
    level[0, 0, :2] += 1e-3
    found = pipeline.verify(made)
    assert not found.passed
    assert found.off == 3  # and the pixel of the next level that is made of them
    assert "3 pixels of further levels are not what the level before makes" in str(found)


@pytest.mark.parametrize("shrink", ["mean", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint16"])
def test_a_pixel_of_a_level_that_is_one_step_off_does_not_pass(shrink: str, dtype: str) -> None:
    image = np.random.default_rng(8).normal(size=(32, 32)).astype(np.float32)
    made = job(image, {"type": "relu"}, chunks=16, pyramid=shrink, dtype=dtype)
    level = zarr.open_array("o.zarr/i/relu/1", mode="r+")
    assert level.shape == (1, 16, 16)
    stored = level[...]
    y, x = divmod(int(np.argmin(np.abs(stored - np.median(stored)))), 16)
    pixel = stored[0, y, x]
    level[0, y, x] = pixel - 1 if "int" in dtype else np.nextafter(pixel, pixel - 1)
    found = pipeline.verify(made)
    assert (found.passed, found.off) == (False, 1), found


def test_a_level_that_is_damaged_or_missing_is_named() -> None:
    made = job(RNG.normal(size=(101, 67)).astype(np.float32), {"type": "relu"}, chunks=16, pyramid="mean")
    Path("o.zarr/i/relu/1/c/0/0/0").write_bytes(b"damaged")
    found = pipeline.verify(made)
    assert not found.passed
    assert any(name.startswith("i/relu level 1 y [0, 24), x [0, 24): ") for name in found.unreadable)
    Path("o.zarr/i/relu/3/zarr.json").unlink()
    with pytest.raises(OutputError, match=r"o\.zarr/i/relu/3: cannot be read"):
        pipeline.verify(made)


@pytest.mark.parametrize("shrink", ["mean", "max"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_number_over_missing_pixels_does_not_pass(shrink: str, dtype: str) -> None:
    image = RNG.normal(size=(32, 32)).astype(np.float32)
    image[8:16, 8:16] = np.nan
    made = job(image, {"type": "relu"}, chunks=16, pyramid=shrink, dtype=dtype)
    assert pipeline.verify(made).passed
    zarr.open_array("o.zarr/i/relu/1", mode="r+")[0, 5, 6] = 1
    found = pipeline.verify(made)
    assert (found.passed, found.off) == (False, 1), found
