"""Going on with a store of which not all is as it was written: with --checksums that is made anew, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.storage.place import Place

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


def test_what_is_intact_stays_as_it_is_where_an_input_is_gone(wide: Path, haloflow: Call) -> None:
    """Tables too; of them one that was damaged is written anew, from the records."""
    zarr.create_array("other.zarr", data=np.ones((600, 500), np.uint8), chunks=(512, 512))
    words = [*CUT, *PYRAMID, "--set", "input.images=[image.zarr, other.zarr]"]
    words += ["--set", "output.summaries={layers: [pool]}"]
    assert haloflow("run", "config.yaml", *words)[0] == 0
    (table,) = Path("maps.zarr/_haloflow/tables").iterdir()
    text, made = table.read_bytes(), {path: path.stat().st_mtime_ns for path in Path("maps.zarr").glob("*/*/*/c/**/*")}
    Path("other.zarr/zarr.json").rename("aside")
    assert haloflow("run", "config.yaml", *words, "--resume", "--checksums")[0] == 0
    Path("aside").rename("other.zarr/zarr.json")
    table.write_bytes(text.replace(b"1", b"2", 1))
    assert haloflow("verify", "config.yaml", *words[2:], "--checksums")[0] == 3
    assert haloflow("run", "config.yaml", *words, "--resume", "--checksums")[0] == 0
    assert table.read_bytes() == text
    assert {path: path.stat().st_mtime_ns for path in Path("maps.zarr").glob("*/*/*/c/**/*")} == made


@pytest.mark.parametrize("key", ["image/pool/0/zarr.json", "image/pool/1/zarr.json"])
def test_metadata_of_an_array_that_are_no_json_any_more_are_written_anew(wide: Path, haloflow: Call, key: str) -> None:
    assert haloflow("run", "config.yaml", *CUT, *PYRAMID)[0] == 0
    whole, told = files(), Path("maps.zarr", key).read_bytes()
    Path("maps.zarr", key).write_bytes(told[:-30])
    assert haloflow("verify", "config.yaml", *PYRAMID, "--checksums")[0] == 3
    assert haloflow("run", "config.yaml", *CUT, *PYRAMID, "--resume", "--checksums")[0] == 0
    assert Path("maps.zarr", key).read_bytes() == told
    assert files() == whole


@pytest.mark.parametrize("harm", [lambda data: data[:-1] + b"?", lambda data: data[:-9], lambda data: b"?" + data[1:]])
def test_a_damaged_shard_far_away_is_made_anew(wide: Path, harm: Callable[[bytes], bytes]) -> None:
    store = f"memory://{wide.name}/o.zarr"
    config = {
        "input": {"images": "image.zarr"},
        "layers": [{"type": "pool", "window": 2}],
        "output": {"store": store, "chunks": 128, "shards": 256, "pyramid": "mean"},
    }
    plan = pipeline.plan(pipeline.load(config))
    assert pipeline.run(plan, "serial").complete
    place = Place.of(store)
    keys = [key for key in place.list("image") if "/c/" in key]
    whole = {key: place.read(key) for key in keys}
    for key in ("image/pool/0/c/0/1/1", "image/pool/0/c/0/2/2", "image/pool/1/c/0/0/1"):
        place.write(key, harm(whole[key] or b""))
    assert pipeline.run(plan, "serial", resume=True, checksums=True).complete
    assert {key: place.read(key) for key in keys} == whole
