"""Run the jobs named, or all, and write the table, the plot and bench.json."""

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from benchmark import machine, report
from benchmark.catalogue import jobs
from benchmark.measure import CHEAP, measure
from benchmark.room import Room

QUICK_SIDE = 1024

KEEP_FREED = {"MALLOC_TRIM_THRESHOLD_": 2**28, "MALLOC_MMAP_THRESHOLD_": 2**25}
"""Bytes, for glibc; Dask's own setting gives freed memory back at once."""

QUICK_JOBS = ("narrow", "narrow-int8", "wide", "large31", "separable")


def main() -> None:
    """Do as the words say; ends with 1 if an answer differs."""
    told = _words()
    names = told.job or list(QUICK_JOBS if told.quick else jobs())
    rounds = told.repeat or (1 if told.quick else 5)
    side = told.side or (QUICK_SIDE if told.quick else 8192)
    folder = told.folder or Path(tempfile.mkdtemp(prefix="haloflow-bench-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # What a worker holds is no matter of this program, and a pause for memory would falsify the times.
    dask.config.set({"distributed.worker.memory.terminate": False})
    # Every contestant's workers keep what they free and are spared Dask's profile of them, as Haloflow does with a
    # cluster of its own: it makes all of them faster.
    dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP_FREED})
    dask.config.set({"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"})
    session = []
    try:
        with (
            _cluster(2) as pair,
            Client(pair) as client,
            _cluster(1) as lone,
            Client(lone, set_as_default=False) as single,
        ):
            for name in names:
                job = jobs()[name]
                chosen = [n for n in job.contestants if n == "haloflow" or _wanted(n, told.only, told.quick)]
                print(f"{name}: {job.title}", flush=True)
                room = Room(job, side, folder, client, single)
                session.append((job, room.side, measure(room, chosen, rounds)))
                print(report.write(told.out, session, machine.describe(), rounds), flush=True)
    finally:
        if not told.folder:
            shutil.rmtree(folder)
    results = [result for _, _, measured in session for result in measured.results.values()]
    sys.exit(not all(result.agrees for result in results))


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("job", nargs="*", choices=[[], *jobs()], metavar="JOB", help=f"of {', '.join(jobs())}")
    parser.add_argument("--repeat", type=int, help="rounds that count, after one that warms up (default: 5)")
    parser.add_argument("--side", type=int, help="the image's height and width (default: 8192)")
    parser.add_argument("--folder", type=Path, help="where the data go, and stay (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="where the results go")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the contestants beside haloflow")
    parser.add_argument("--quick", action="store_true", help="a small image, one round, the cheap contestants")
    return parser.parse_args()


def _wanted(name: str, only: list[str] | None, quick: bool) -> bool:
    return name in (only if only is not None else CHEAP if quick else [name])


def _cluster(workers: int) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.ERROR,
    )


if __name__ == "__main__":
    main()
