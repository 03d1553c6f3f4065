"""Going on with a store of which not all is as it was written: with --checksums that is made anew, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline

Call = Callable[..., tuple[int, str, str]]

CUT = ["--cluster", "serial"]
PYRAMID = ["--set", "output.pyramid=mean", "--set", "output.chunks=256"]


@pytest.fixture
def wide(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of several tasks, with a level made along with them and one made after them."""
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    image = np.random.default_rng(8).integers(0, 255, (1500, 1300), np.uint8)
    zarr.create_array("image.zarr", data=image, chunks=(512, 512), overwrite=True)
    return small


def files(store: str = "maps.zarr") -> dict[str, bytes]:
    found = sorted(path for path in Path(store).glob("image/*/*/c/**/*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {"flipped": flip, "gone": Path.unlink, "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9])}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_what_is_not_as_it_was_written_is_made_anew(wide: Path, haloflow: Call, level: str, damage: str) -> None:
    assert haloflow("run", "config.yaml", *CUT, *PYRAMID)[0] == 0
    whole = files()
    key = next(name for name in whole if name.startswith(f"image/pool/{level}/"))
    DAMAGE[damage](wide / "maps.zarr" / key)
    code, out, err = haloflow("verify", "config.yaml", *PYRAMID, "--checksums")
    assert (code, out.count(key)) == (3, 1)
    assert err == (
        "error: maps.zarr is not what it should be; 'haloflow run --resume --checksums' makes anew what was damaged\n"
    )
    code, out, _ = haloflow("run", "config.yaml", *CUT, *PYRAMID, "--resume", "--json")
    assert (code, files() == whole) == (0, False)  # its records say that it is there
    code, out, _ = haloflow("run", "config.yaml", *CUT, *PYRAMID, "--resume", "--checksums", "--json")
    told = json.loads(out.splitlines()[-1])
    assert (code, told["complete"], told["tasks"] - told["resumed"]) == (0, True, 0 if level == "2" else 1)
    assert files() == whole
    assert haloflow("verify", "config.yaml", *PYRAMID, "--checksums")[0] == 0
    assert haloflow("verify", "config.yaml", *PYRAMID)[0] == 0


def test_checksums_are_of_what_there_is(small: Path, haloflow: Call) -> None:
    words = "error: --checksums looks at what an earlier run made: give --resume, too\n"
    assert haloflow("run", "config.yaml", *CUT, "--checksums") == (2, "", words)
    plan = pipeline.plan(pipeline.load("config.yaml"))
    with pytest.raises(TypeError, match="checksums: expected True or False, not 1"):
        pipeline.run(plan, "serial", resume=True, checksums=1)
    assert not Path("maps.zarr").exists()
    assert haloflow("run", "config.yaml", *CUT, "--resume", "--checksums")[0] == 0  # of nothing all is made
