"""Tell X from O: draw letters, fit votes on some, and count how many of the others they decide right.

python scripts/xo.py FOLDER [--train 200] [--test 1800] [--sides 64 512] [--cluster threads]

Prints the figures, and ends with 1 where fewer than 99 of 100 are right. Nothing that votes are fitted on is counted.
"""

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

import yaml

import pipeline

CONFIG = Path("configs/x_or_o.yaml")
ENOUGH = 0.99


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description="Tell X from O.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=200, help="images of each letter to fit on")
    parser.add_argument("--test", type=int, default=1800, help="images of each letter to decide")
    parser.add_argument("--sides", type=int, nargs=2, default=(64, 512), help="pixels of a side, from and to")
    parser.add_argument("--cluster", default="threads")
    told = parser.parse_args()
    sides = [str(side) for side in told.sides]
    for seed, (name, count) in enumerate((("train", told.train), ("test", told.test)), 1):
        arguments = ["letters", told.folder / name, "--count", str(count), "--seed", str(seed), "--sides", *sides]
        subprocess.run([sys.executable, Path(__file__).with_name("make_xo.py"), *arguments], check=True)
    votes, labels = told.folder / "votes.yaml", told.folder / "train" / "labels.csv"
    settings = [f"input.images={told.folder}/train/*.zarr"]
    print(pipeline.fit(CONFIG, labels, votes, settings=settings, cluster=told.cluster, overwrite=True))

    config = yaml.safe_load(CONFIG.read_text())
    config["input"]["images"] = f"{told.folder}/test/*.zarr"
    config["output"]["store"] = f"{told.folder}/decided.zarr"
    next(layer for layer in config["layers"] if layer["type"] == "vote")["file"] = str(votes)
    start = time.perf_counter()
    plan = pipeline.plan(pipeline.load(config))
    planned = time.perf_counter() - start
    report = pipeline.run(plan, told.cluster, overwrite=True)
    if not report.complete:
        sys.exit(str(report))
    (table,) = report.tables
    with Path(table).open(newline="") as file:
        decided = {row["image"]: row["class"] for row in csv.DictReader(file)}
    with (told.folder / "test" / "labels.csv").open(newline="") as file:
        given = {row["image"]: row["label"] for row in csv.DictReader(file)}
    if decided.keys() != given.keys():
        sys.exit(f"{len(given)} images were drawn, and {len(decided)} decided")
    wrong = [f"{image} as {decided[image] or 'neither'}" for image, letter in given.items() if decided[image] != letter]
    accuracy = 1 - len(wrong) / len(given)
    print(
        f"decided {len(given)} images that the votes were not fitted on: {accuracy:.3%} right; planned in "
        f"{planned:.1f} s, run in {report.seconds:.1f} s ({report.pixels / 1e6:.0f} megapixels)"
    )
    print(f"wrong: {', '.join(wrong) or 'none'}")
    if accuracy < ENOUGH:
        sys.exit(f"fewer than {ENOUGH:.0%} are right")


if __name__ == "__main__":
    main()
