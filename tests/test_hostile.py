"""What is hostile costs little: YAML, metadata and chunks that claim or hold more than they should, and bad outputs."""

import gzip
import json
import os
import pty
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import psutil
import pytest
import zarr

import pipeline
from pipeline.execute.drive import DRAIN
from pipeline.geometry import Interval
from pipeline.storage.images import open_image

Call = Callable[..., tuple[int, str, str]]

LIMIT = 100 * 2**20
"""Bytes that refusing a hostile file may take."""

YAML = {
    "bomb": "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]),
    "deep": "[" * 500_000,
    "deep mapping": "{a: " * 200_000,
    "tag": "type: !!python/object/apply:os.system ['touch canary']",
    "twice": "type: local\ntype: local",
    "large": "a" * 10_000_000,
    "many": "- a\n" * 2_500_000,
    "wide": "type: local\n" + "".join(f"k{i}: 1\n" for i in range(60_000)),
}

REFUSE = """
import resource, sys, time
from pipeline.clusters import manager
from pipeline.config import read
from pipeline.errors import ConfigError
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]),) * 2)
for name in sys.argv[2:]:
    for act in (read, manager):
        started = time.process_time()
        try:
            act(name)
        except ConfigError as error:
            assert len(str(error).splitlines()[0]) < 1000, name
        else:
            raise AssertionError(name)
        assert time.process_time() - started < 1, f"{name}: {time.process_time() - started}"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds its address space as Linux does")
def test_hostile_yaml_is_refused_in_a_second_and_little_memory(small: Path) -> None:
    """Configs and files of clusters alike, in a process that cannot have more."""
    for name, text in YAML.items():
        Path(f"{name}.yaml").write_text(text)
    words = [sys.executable, "-c", REFUSE, str(LIMIT), *(f"{name}.yaml" for name in YAML)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not Path("canary").exists()


EXTENTS = [
    ([2**63, 4], [2, 2], "pixels; that is no image"),
    ([0, 4], [2, 2], "h.zarr"),
    ([-1, 4], [2, 2], "h.zarr"),
    ([2**40, 2**40], [1024, 1024], "has 1152921504606846976 chunks, and no image has more than 4294967296"),
    ([2**30, 2**30], [1, 1], "chunks, and no image has more than 4294967296"),
    ([1_500_000, 1_500_000], [1_500_000, 1_500_000], "a worker would need"),
]


@pytest.mark.parametrize(("shape", "chunks", "words"), EXTENTS, ids=[str(e[:2]) for e in EXTENTS])
def test_hostile_extents_are_refused_at_plan(
    small: Path, haloflow: Call, shape: list[int], chunks: list[int], words: str
) -> None:
    zarr.create_array("h.zarr", shape=(4, 4), chunks=(2, 2), dtype="u1")
    told = json.loads(Path("h.zarr/zarr.json").read_text())
    told["shape"], told["chunk_grid"]["configuration"]["chunk_shape"] = shape, chunks
    Path("h.zarr/zarr.json").write_text(json.dumps(told))
    code, out, err = haloflow("plan", "config.yaml", "--set", "input.images=h.zarr")
    assert (code, out, "Traceback" in err) == (2, "", False)
    assert words in err


def test_ten_to_the_nine_chunks_that_are_not_there_are_planned(small: Path, haloflow: Call) -> None:
    zarr.create_array("h.zarr", shape=(40_000, 40_000), chunks=(1, 1), dtype="u1")
    code, out, err = haloflow("plan", "config.yaml", "--set", "input.images=h.zarr", "--set", "output.chunks=1000")
    assert code == 0, err
    assert "0 tasks" in out


def zstd_bomb(total: int) -> bytes:
    """A frame that does not say how much it holds: blocks of one byte, 128 KiB times (RFC 8878, 3.1.1)."""
    blocks = -(-total // 2**17)
    made = bytearray(bytes.fromhex("28b52ffd") + b"\x00\x38")
    for n in range(blocks):
        made += (int(n == blocks - 1) | 1 << 1 | 2**17 << 3).to_bytes(3, "little") + b"\x07"
    return bytes(made)


def zstd_claim(total: int) -> bytes:
    """A frame whose header says that it holds so much."""
    return bytes.fromhex("28b52ffd") + b"\xc0\x38" + struct.pack("<Q", total) + b"\x03\x00\x00\x07"


def blosc_claim(total: int) -> bytes:
    """A chunk of about 100 bytes whose header says that it holds so much."""
    made = bytearray(numcodecs.Blosc("lz4").encode(np.zeros(64 * 64, np.uint8)))
    made[4:8] = struct.pack("<I", total)
    return bytes(made)


BOMBS = {
    "gzip": ({"id": "gzip"}, lambda: gzip.compress(bytes(2**28))),
    "zstd": ({"id": "zstd"}, lambda: zstd_bomb(2**28)),
    "zstd that claims": ({"id": "zstd"}, lambda: zstd_claim(2**40)),
    "blosc that claims": ({"id": "blosc"}, lambda: blosc_claim(2**26)),
    "blosc that claims most": ({"id": "blosc"}, lambda: blosc_claim(2**31 - 1)),
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_decompression_bomb_gets_no_more_than_its_chunk(small: Path, haloflow: Call, bomb: str, version: int) -> None:
    config, make = BOMBS[bomb]
    codec: Any = numcodecs.get_codec(dict(config))
    if version == 3:
        codec = getattr(zarr.codecs, f"{config['id'].capitalize()}Codec")()
    ones = np.ones((64, 128), np.uint8)
    array = zarr.create_array("b.zarr", data=ones, chunks=(64, 64), compressors=codec, zarr_format=version)
    Path("b.zarr", array.metadata.encode_chunk_key((0, 1))).write_bytes(make())
    box = (Interval(0, 64), Interval(64, 128))
    source = open_image("b.zarr")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        with pytest.raises(pipeline.HaloflowError, match=r"b\.zarr: y .* cannot be read"):
            source.read(box)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    words = ["--set", "input.images=b.zarr", "--set", "output.chunks=16", "--cluster", "serial"]
    code, _, err = haloflow("run", "config.yaml", *words)
    assert (code, "Traceback" in err) == (3, False)


def can_mount() -> bool:
    tool = shutil.which("unshare")
    return bool(tool) and subprocess.run([tool, "-m", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount in a namespace of its own")
def test_an_output_on_a_read_only_mount_is_refused_before_any_work(small: Path) -> None:
    """Root may write where permissions say no, but not here."""
    Path("frozen").mkdir()
    script = 'mount --bind frozen frozen && mount -o remount,ro,bind frozen && exec "$@"'
    run = [sys.executable, "-m", "pipeline.cli", "run", "config.yaml", "--set", "output.store=frozen/deep/maps.zarr"]
    words = ["unshare", "-m", "sh", "-c", script, "sh", *run]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "frozen cannot be written, so frozen/deep/maps.zarr cannot be made" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(Path("frozen").iterdir())


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_ctrl_c_at_a_terminal(small: Path, twice: bool) -> None:
    """The key itself, at a terminal whose foreground job the run and its workers are."""
    image = np.random.default_rng(1).integers(0, 256, (2, 600, 600)).astype(np.uint8)
    zarr.create_array("image.zarr", data=image, chunks=(1, 100, 100), overwrite=True)
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    code += "import pipeline.planner as p; p.TASK_PIXELS = 0; from pipeline.cli import main; main()"
    words = ["run", "config.yaml", "--set", "output.chunks=15", "--workers", "1"]
    terminal, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    limit = time.monotonic() + 120
    seen = b""
    os.set_blocking(terminal, False)

    def listen() -> bool:
        nonlocal seen
        try:
            seen += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # nobody is at the terminal any more
            return False
        assert time.monotonic() < limit, seen
        return True

    while not list(Path().glob("maps.zarr/image/pool/0/c/0/*/*")):
        assert listen(), seen
    began = time.monotonic()
    if twice:  # what is under way does not end, so the first time is not enough
        (worker,) = [p for p in psutil.Process(child.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        worker.suspend()
        os.write(terminal, b"\x03")
        while time.monotonic() < began + 1:
            assert listen(), seen
    os.write(terminal, b"\x03")
    while listen():
        pass
    os.close(terminal)
    assert time.monotonic() - began < DRAIN * 0.9
    assert not (twice and worker.is_running())
    assert child.wait(timeout=60) == 128 + signal.SIGINT, seen
    assert b"Traceback" not in seen
    assert b"interrupted" in seen
    assert zarr.open_group("maps.zarr", mode="r").attrs["_haloflow"]["complete"] is False
