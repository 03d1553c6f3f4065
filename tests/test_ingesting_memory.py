"""A TIFF is ingested in a bounded amount of memory, however large it is and however it is laid out."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

SCRIPT = Path(__file__).parent.parent / "scripts/make_tiff.py"
LAYOUTS = [("tiled", "zlib"), ("striped", "zlib"), ("striped", "none"), ("single", "none")]
SIDE = 8000
MEASURE = """
    import re, sys
    from pathlib import Path
    import tifffile
    from pipeline.ingesting.ingest import ingest

    def peak():  # not ru_maxrss, into which Linux counts what the parent held when it started this process
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    small, large, out, how = sys.argv[1:]
    ingest(small, out + "/small.zarr", overwrite=True)
    before = peak()
    if how == "whole":
        tifffile.imread(large).sum()
    else:
        ingest(large, out + "/large.zarr", chunks=512)
    print(peak() - before)
"""


def make(path, side, layout, compression):
    command = [sys.executable, SCRIPT, path, "--side", side, "--layout", layout, "--compression", compression]
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=300)


def growth(folder, how):
    """Return by how many bytes the peak of a fresh process grows from a small image to a large one."""
    command = [sys.executable, "-c", textwrap.dedent(MEASURE)]
    command += [str(folder / "small.tif"), str(folder / "large.tif"), str(folder), how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it")
@pytest.mark.parametrize(("layout", "compression"), LAYOUTS)
def test_a_tiff_is_streamed(tmp_path, layout, compression):
    make(tmp_path / "small.tif", 700, layout, compression)
    make(tmp_path / "large.tif", SIDE, layout, compression)
    image = SIDE * SIDE
    if layout == "tiled":  # so the bound below would show a file loaded whole
        assert growth(tmp_path, "whole") > 0.9 * image
    assert growth(tmp_path, "streamed") < 0.6 * image
    original = tifffile.imread(tmp_path / "large.tif")
    assert original.std() > 30
    assert np.array_equal(zarr.open_array(tmp_path / "large.zarr/0", mode="r")[0], original)


def test_made_tiffs_have_the_same_pixels_in_every_layout(tmp_path):
    images = []
    for layout, compression in LAYOUTS:
        make(tmp_path / "a.tif", 701, layout, compression)
        images.append(tifffile.imread(tmp_path / "a.tif"))
    assert all(np.array_equal(images[0], image) for image in images)
