"""Every config is run, and so is every block of the README."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

import pipeline
from pipeline.layers import LAYERS
from pipeline.storage.metadata import Placed, Window, describe
from pipeline.storage.place import VARIABLE
from tests.buckets import KEYS, client, s3_server, upload
from tests.conftest import ROOT

Call = Callable[..., tuple[int, str, str]]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LOCAL = [path for path in CONFIGS if path.name != "bucket.yaml"]
README = (ROOT / "README.md").read_text()


def make_inputs() -> None:
    pipeline.ingest("tests/data/blue_marble.jpg", "demo/blue_marble.zarr", chunks=512)
    subprocess.run([sys.executable, ROOT / "scripts/make_geotiff.py", "demo/island.tif", "--side", "700"], check=True)
    pipeline.ingest("demo/island.tif", "demo/island.zarr")
    letters = ["letters", "demo/letters/test", "--count", "3", "--seed", "2", "--sides", "64", "120"]
    subprocess.run([sys.executable, ROOT / "scripts/make_xo.py", *letters], check=True)
    mosaic = ["mosaic", "demo/mosaic.zarr", "--extent", "384"]
    subprocess.run([sys.executable, ROOT / "scripts/make_xo.py", *mosaic], check=True)
    make_cells()


def make_cells() -> None:
    """Write a small stack of planes as a microscope would: 0.5 µm a pixel, 12 bits, two stains."""
    axes = [("t", "second"), ("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer")]
    level, windows = Placed("0", (30.0, 1.0, 2.0, 0.5, 0.5), (0.0,) * 5), [Window.of(0, 4095)] * 2
    group = zarr.create_group(
        "demo/cells.ome.zarr", attributes=describe("cells", axes, [level], ["DAPI", "GFP"], windows)
    )
    pixels = np.random.default_rng(1).poisson(300, (2, 2, 8, 150, 160)).astype(np.uint16)
    pixels[0, 0, 3:5, 90:93, 70:73] += 2000  # centres at 45 to 46 µm and 35 to 36 µm
    group.create_array("0", data=pixels, chunks=(1, 1, 1, 64, 64))


@pytest.mark.parametrize("path", LOCAL, ids=lambda p: p.name)
def test_every_config_runs_and_verifies(project: Path, haloflow: Call, path: Path) -> None:
    config = str(path.relative_to(ROOT))
    make_inputs()
    code, _, err = haloflow("run", config, "--cluster", "serial")
    assert code == 0, err
    assert haloflow("verify", config, "--windows", "4")[0] == 0  # a window of the mosaic's 49 features takes seconds


def test_the_demo_s_picture_is_drawn(project: Path, haloflow: Call) -> None:
    pipeline.ingest("tests/data/blue_marble.jpg", "demo/blue_marble.zarr", chunks=512)
    assert haloflow("run", "configs/blue_marble.yaml", "--cluster", "serial")[0] == 0
    subprocess.run(
        [sys.executable, ROOT / "scripts/draw.py", "configs/blue_marble.yaml", "demo/blue_marble.png"], check=True
    )
    picture = np.asarray(Image.open("demo/blue_marble.png").convert("RGB"))
    assert min(picture.shape[:2]) > 500
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10_000  # a photograph and maps, not empty frames


def test_the_batch_in_a_bucket_runs_and_verifies(
    project: Path, haloflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as port:
        told = {**KEYS, "endpoint_url": f"http://127.0.0.1:{port}", "client_kwargs": {"region_name": "us-east-1"}}
        monkeypatch.setenv(VARIABLE, json.dumps(told))
        for bucket in ("scans", "results"):
            client(port).create_bucket(Bucket=bucket)
        for name in ("page-1", "page-2"):
            pixels = np.random.default_rng(len(name)).integers(0, 256, (700, 500)).astype(np.uint8)
            zarr.create_array(f"{name}.zarr", data=pixels, chunks=(256, 256))
            upload(port, Path(f"{name}.zarr"), "scans", f"batch-7/{name}.zarr")
        code, _, err = haloflow("run", "configs/bucket.yaml", "--cluster", "serial")
        assert code == 0, err
        assert haloflow("verify", "configs/bucket.yaml")[0] == 0
        code, out, _ = haloflow("info", "s3://results/batch-7.zarr")
        assert code == 0
        assert "page-1/pool" in out
        assert "page-2/pool" in out


def test_the_microscopy_example_finds_its_spot_in_micrometres(project: Path, haloflow: Call) -> None:
    make_cells()
    assert haloflow("run", "configs/microscopy.yaml", "--cluster", "serial")[0] == 0
    spots = pipeline.open("demo/cells_maps.zarr")["cells/spots/spots"]
    assert spots.dims == ("t", "feature", "z", "y", "x")
    assert spots.shape == (1, 1, 4, 80, 110)
    z, y, x = np.unravel_index(spots[0, 0].values.argmax(), spots.shape[2:])
    assert float(spots.z[z]) in (6.0, 8.0)
    assert abs(float(spots.y[y]) - 45.5) <= 0.25
    assert abs(float(spots.x[x]) - 35.5) <= 0.25


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_readme_has_its_parts() -> None:
    assert len(blocks("bash")) >= 2
    assert blocks("python")
    assert blocks("yaml")
    # The first thing it shows is how to start.
    assert blocks("bash")[0].split("\n")[:2] == ["scripts/demo", "scripts/test"]


def test_the_readme_names_every_layer_and_shows_what_is_there() -> None:
    for kind in LAYERS:
        assert f"| `{kind}` |" in README
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
    assert not re.search(r"@[A-Z]+@", README)


def test_the_readme_s_python_runs(project: Path, haloflow: Call) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - it is our own
    (line,) = re.findall(r"`(xarray\.open_zarr\([^`]*\))`", README)
    assert "0" in eval(line, {"xarray": pytest.importorskip("xarray")})  # noqa: S307 - so is this


def test_the_readme_s_config_is_one_of_ours() -> None:
    for block in blocks("yaml"):
        assert any(block in path.read_text() for path in CONFIGS)


def test_the_readme_s_shell_runs(project: Path, haloflow: Call) -> None:
    """Each 'haloflow' line is run; the lines that make an environment or wait for a cluster are checked to exist."""
    ran = 0
    for block in blocks("bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["haloflow", "view"] or "tcp://" in line or "s3://" in line or "bucket.yaml" in line:
                continue  # waits for Ctrl-C, or for a server: tested on its own
            if words[:1] == ["haloflow"]:
                code, _, err = haloflow(*words[1:])
                assert code == 0, f"{line}: {err}"
                ran += 1
            elif words[:1] == ["python"]:
                subprocess.run([sys.executable, ROOT / words[1], *words[2:]], check=True)
            elif words and words[0].startswith("scripts/"):
                script = ROOT / words[0]
                assert script.is_file()
                if script.suffix != ".py":
                    subprocess.run(["bash", "-n", script], check=True)
    assert ran >= 5
