"""Ingest and run a large TIFF in processes of their own, and measure the peak resident memory of each.

python scripts/memory.py [--side 20000] [--limit 700] [--folder DIR] [--growth]

Makes a striped and a tiled uint8 TIFF of SIDE × SIDE pixels, plain and compressed, turns each into chunked Zarr, runs a
small stack over the last with two worker processes, verifies the result, exports a map to TIFF, and prints a line for
each process. Ends with 1 if one held more than LIMIT megabytes (10^6 bytes), an ingest more than 500, or if a worker
held more than its plan forecasts. With --growth instead: the same stack over images of 64 megapixels and of 4
gigapixels, whose workers must hold the same within a tenth.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

INGEST = 500e6
"""Bytes that an ingest may hold."""

HALOFLOW = [sys.executable, "-m", "pipeline.cli"]

CONFIG = """
input: {images: big.zarr}
features:
  edge: {rows: [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]}
  corner: {rows: [[2, 1, 0], [1, 0, -1], [0, -1, -2]]}
  spot: {rows: [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]}
layers:
  - {type: convolution, features: [edge, corner, spot], match: sum}
  - {type: relu}
  - {type: pool, window: 2, stride: 2}
output: {store: maps.zarr}
"""


def peaks(words: list[str], folder: Path) -> tuple[float, dict[str, int], str]:
    """Run a command; return its seconds, the peak resident bytes of it and its children, and what it printed."""
    found: dict[str, int] = {}
    child = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
    started = time.perf_counter()
    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.append(child.stdout.read() if child.stdout else ""))
    reader.start()
    top = psutil.Process(child.pid)
    while child.poll() is None:
        for process in [top, *_children(top)]:
            try:
                name = "main" if process.pid == top.pid else f"child {process.pid}"
                # The kernel's own high-water mark, so that no peak is missed between two looks.
                status = Path(f"/proc/{process.pid}/status").read_text()
                mark = next(line for line in status.splitlines() if line.startswith("VmHWM"))
                found[name] = int(mark.split()[1]) * 1024
            except (OSError, StopIteration, psutil.Error):
                continue
        time.sleep(0.05)
    reader.join()
    if child.stdout:
        child.stdout.close()
    if child.returncode:
        sys.exit(f"{' '.join(words)} ended with {child.returncode}")
    return time.perf_counter() - started, found, printed[0]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def main() -> None:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--limit", type=float, default=700, help="megabytes a process may hold")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--growth", action="store_true", help="compare a small image and a large one")
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="haloflow-memory-", dir=told.folder))
    if told.growth:
        growth(folder)
    make = Path(__file__).with_name("make_tiff.py")
    worst = 0.0
    try:
        (folder / "config.yaml").write_text(CONFIG)
        layouts = [("striped", "none"), ("tiled", "none"), ("tiled", "zlib"), ("striped", "zlib")]
        for layout, codec in layouts:
            size = ["--side", str(told.side), "--layout", layout, "--compression", codec]
            subprocess.run([sys.executable, str(make), "big.tif", *size], cwd=folder, check=True, capture_output=True)
            words = ["ingest", "big.tif", "big.zarr", "--overwrite", "--quiet"]
            seconds, found, _ = peaks([*HALOFLOW, *words], folder)
            print(f"ingest of {layout}, {codec}: {found['main'] / 1e6:.0f} MB, {seconds:.1f} s")
            if found["main"] > INGEST:
                sys.exit(f"an ingest held more than {INGEST / 1e6:.0f} MB")
        forecast = 0
        for words in (
            ["plan", "config.yaml", "--json"],
            ["run", "config.yaml", "--workers", "2", "--quiet"],
            ["verify", "config.yaml"],
            ["export", "maps.zarr/big/pool", "edge.tif", "--channel", "edge", "--quiet"],
        ):
            seconds, found, printed = peaks([*HALOFLOW, *words], folder)
            if words[0] == "plan":
                forecast = _forecast(json.loads(printed))
                print(f"plan: a worker is forecast to hold {forecast / 1e6:.0f} MB")
                continue
            for name, peak in found.items():
                print(f"{words[0]}: {name}: {peak / 1e6:.0f} MB, {seconds:.1f} s")
                worst = max(worst, peak / 1e6)
                if words[0] == "run" and name != "main" and peak > forecast:
                    sys.exit("a worker held more than the forecast")
            if words[0] == "verify":
                print(printed.strip())
    finally:
        shutil.rmtree(folder)
    print(f"the largest process held {worst:.0f} MB; the limit is {told.limit:.0f} MB")
    sys.exit(worst > told.limit)


def growth(folder: Path) -> None:
    """Run the stack over a small and a large image, and end with 1 if a worker holds a tenth more for the large one."""
    (folder / "config.yaml").write_text(
        CONFIG.replace("store: maps.zarr", "store: maps.zarr, dtype: int8, range: [-8, 8]")
    )
    chunk = np.random.default_rng(0).integers(0, 256, (1024, 1024)).astype(np.uint8)
    held = []
    try:
        for side in (8192, 65536):
            array = zarr.create_array(folder / "big.zarr", shape=(side, side), chunks=chunk.shape, dtype="uint8")
            array[:1024, :1024] = chunk
            for row in range(side // 1024):  # one file under many names: the image is large, the disk need not be
                (folder / f"big.zarr/c/{row}").mkdir(exist_ok=True)
                for column in range(side // 1024):
                    if row or column:
                        (folder / f"big.zarr/c/{row}/{column}").hardlink_to(folder / "big.zarr/c/0/0")
            seconds, found, _ = peaks([*HALOFLOW, "run", "config.yaml", "--workers", "2", "--quiet"], folder)
            for name, peak in found.items():
                print(f"{side}²: {name}: {peak / 1e6:.0f} MB, {seconds:.1f} s")
            held.append(max(peak for name, peak in found.items() if name != "main"))
            shutil.rmtree(folder / "maps.zarr")
            shutil.rmtree(folder / "big.zarr")
    finally:
        shutil.rmtree(folder)
    print(f"a worker holds {held[1] / held[0]:.2f} times as much for the large image")
    sys.exit(held[1] > 1.1 * held[0])


def _forecast(plan: dict[str, Any]) -> int:
    return int(plan["peak_memory"])


if __name__ == "__main__":
    main()
