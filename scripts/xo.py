"""Tell X from O: draw letters, fit votes on some, and count how many of the others they decide right.

python scripts/xo.py images FOLDER [--train 200] [--test 1800] [--sides 64 512] [--cluster threads]
python scripts/xo.py mosaic FOLDER [--extent 4096] [--seed 1] [--cluster threads]

Prints the figures, and ends with 1 where they are not enough: of images 99 of 100 decided right, none of which votes
were fitted on; of a mosaic an F1 of 0.98 over letters that are found, within half their radius, and named.
"""

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

import pipeline

CONFIG, MOSAIC = Path("configs/x_or_o.yaml"), Path("configs/mosaic.yaml")
ENOUGH, ENOUGH_FOUND = 0.99, 0.98


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description="Tell X from O.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    images, mosaic = verbs.add_parser("images"), verbs.add_parser("mosaic")
    for verb in (images, mosaic):
        verb.add_argument("folder", type=Path)
        verb.add_argument("--cluster", default="threads")
    images.add_argument("--train", type=int, default=200, help="images of each letter to fit on")
    images.add_argument("--test", type=int, default=1800, help="images of each letter to decide")
    images.add_argument("--sides", type=int, nargs=2, default=(64, 512), help="pixels of a side, from and to")
    mosaic.add_argument("--extent", type=int, default=4096, help="pixels of a side")
    mosaic.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    if told.verb == "images":
        decide(told)
    else:
        find(told)


def draw(*arguments: str | Path) -> None:
    """Draw letters by the script beside this one."""
    subprocess.run([sys.executable, Path(__file__).with_name("make_xo.py"), *arguments], check=True)


def find(told: argparse.Namespace) -> None:
    """Find and name all letters of a mosaic."""
    path = told.folder / "mosaic.zarr"
    told.folder.mkdir(parents=True, exist_ok=True)
    draw("mosaic", path, "--extent", str(told.extent), "--seed", str(told.seed))
    config = yaml.safe_load(MOSAIC.read_text())
    config["input"]["images"], config["output"]["store"] = str(path), f"{told.folder}/found.zarr"
    report = pipeline.run(pipeline.plan(pipeline.load(config)), told.cluster, overwrite=True)
    if not report.complete:
        sys.exit(str(report))
    (table,) = report.tables
    with Path(table).open(newline="") as file:
        found = [(row["feature"], float(row["y"]), float(row["x"])) for row in csv.DictReader(file)]
    with path.with_suffix(".csv").open(newline="") as file:
        letters = list(csv.DictReader(file))
    at = np.array([[float(row["y"]), float(row["x"])] for row in letters])
    taken: set[int] = set()
    for name, y, x in found:
        away = np.hypot(*(at - [y, x]).T)
        nearest = int(away.argmin())
        if letters[nearest]["letter"] == name and away[nearest] <= float(letters[nearest]["radius"]) / 2:
            taken.add(nearest)
    right = len(taken)
    score = 2 * right / (len(found) + len(letters))
    print(
        f"{right} of {len(letters)} letters found and named, {len(found) - right} rows are wrong or double: "
        f"F1 {score:.4f}; {report.pixels / 1e6:.0f} megapixels in {report.seconds:.1f} s"
    )
    if score < ENOUGH_FOUND:
        sys.exit(f"F1 is less than {ENOUGH_FOUND}")


def decide(told: argparse.Namespace) -> None:
    """Fit votes on some images, and decide others."""
    sides = [str(side) for side in told.sides]
    for seed, (name, count) in enumerate((("train", told.train), ("test", told.test)), 1):
        draw("letters", told.folder / name, "--count", str(count), "--seed", str(seed), "--sides", *sides)
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
