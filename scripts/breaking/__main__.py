"""Breaks runs on purpose, and holds what comes of it against a run that nothing disturbed.

scripts/chaos [--workers 200] [--clients 40] ... [--seed N] [--side PIXELS] [--folder DIR]

Each option but the last three is a kind of fault and how many of it to inject. Prints a table, and ends with 1 where
anything was not recovered, came out wrong or was left behind.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from breaking.faults import FAULTS, lacking, table
from breaking.room import Room

LONG = {
    "workers": 200,
    "clients": 40,
    "interrupted": 10,
    "steps": 40,
    "errors": 20,
    "full": 4,
    "corrupt": 6,
    "second": 6,
}


def main() -> None:
    """Break, print, and judge."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    for name, count in LONG.items():
        what = (FAULTS[name].__doc__ or "").split("\n", maxsplit=1)[0]
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help=f"{what} [{count}]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=1024, help="pixels of the image's edge [1024]")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    told = parser.parse_args()
    # Where this runs in the background of a script, SIGINT is ignored, and what it starts would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows = []
    with tempfile.TemporaryDirectory(prefix="haloflow-chaos-", dir=told.folder) as folder:
        room = Room(Path(folder), told.side)
        for name, fault in FAULTS.items():
            count = getattr(told, name)
            if count and (lack := lacking(name)):
                print(f"left out: --{name}: {lack}")
            elif count:
                started = time.monotonic()
                rows.append(fault(room, count, random.Random(f"{told.seed} {name}")))  # noqa: S311 - no secret
                print(f"{rows[-1].fault}: {time.monotonic() - started:.0f} s", flush=True)
    print(table(rows))
    sys.exit(not all(row.is_clean for row in rows))


if __name__ == "__main__":
    main()
