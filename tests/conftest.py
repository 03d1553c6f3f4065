"""What many tests need: drawings of an X and an O, a small config over them, and the command line in this process."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from hypothesis import settings

from pipeline.cli import main

# A loop is compiled when a test first comes to it.
settings.register_profile("haloflow", deadline=None)
settings.load_profile("haloflow")

ROOT = Path(__file__).parent.parent


def drawing_of_x() -> np.ndarray:
    """The 9 × 9 X of the design: ones on both diagonals from (1, 1) to (7, 7), here as 255 on 0."""
    image = np.zeros((9, 9), np.uint8)
    for i in range(1, 8):
        image[i, i] = image[i, 8 - i] = 255
    return image


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of configs/ and tests/data/, and the working directory in it."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "tests" / "data", tmp_path / "tests" / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with image.zarr (2 channels, 40 × 37), and config.yaml over it; the working directory is in it."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(5).integers(0, 256, (2, 40, 37)).astype(np.uint8)
    stored = zarr.create_array("image.zarr", shape=image.shape, chunks=(1, 16, 16), dtype="uint8")
    stored[:] = image
    config: dict[str, Any] = {
        "input": {"images": "image.zarr"},
        "features": {"edge": {"rows": [[-1, 2], [3, 4]]}, "deep": {"rows": [[[1, 2]], [[3, 5]]]}},
        "layers": [
            {"type": "convolution", "name": "match", "features": ["edge"]},
            {"type": "pool", "window": 3, "stride": 2},
        ],
        "output": {"store": "maps.zarr", "chunks": 7},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return tmp_path


@pytest.fixture
def haloflow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; gives (exit code, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["haloflow", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        logging.disable(logging.NOTSET)  # a command may silence its process
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call
