"""The table, the plot and the file of figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmark.jobs import Job
from benchmark.judge import Verdict, judge, speed
from benchmark.measure import BRIEF, Measured, Result

mpl.use("Agg")

Session = Sequence[tuple[Job, int, Measured]]
"""Each job with its image's side and what was measured."""


def write(folder: Path, session: Session, machine: Mapping[str, Any], rounds: int) -> str:
    """Write bench.json, bench.md and bench.png; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = [verdict for job, _, measured in session for verdict in judge(job, measured)]
    data = {
        "machine": dict(machine),
        "rounds": rounds,
        "jobs": [_job(*entry) for entry in session],
        "targets": [verdict.to_dict() for verdict in verdicts],
    }
    (folder / "bench.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table = "\n".join([*_head(machine, rounds), "", *_targets(verdicts), "", *_contestants(session), ""])
    (folder / "bench.md").write_text(table, encoding="utf-8")
    _plot(folder / "bench.png", session, machine)
    return table


def _job(job: Job, side: int, measured: Measured) -> dict[str, Any]:
    return {
        "name": job.name,
        "title": job.title,
        "side": side,
        "channels": job.channels,
        "dtype": job.dtype,
        "recompute": measured.recompute,
        "verified": measured.verified,
        "doubling": measured.doubling,
        "contestants": [
            {**result.to_dict(), "median": _median(result), "speed_ratio": speed(measured.results, result.name)}
            for result in measured.results.values()
        ],
    }


def _median(result: Result) -> float | None:
    return median(result.seconds) if result.seconds else None


def _head(machine: Mapping[str, Any], rounds: int) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    return [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, {machine['system']}, "
        f"Python {machine['python']}, {machine['date'][:10]}; two workers of one thread; medians of {rounds} rounds; "
        f"of two runs in a row the second, where Haloflow takes less than {BRIEF:g} s.",
        "",
        f"{versions}.",
    ]


def _targets(verdicts: Sequence[Verdict]) -> list[str]:
    lines = ["| job | figure | must reach | reached | from … to | |", "|---|---|---|---|---|---|"]
    for v in verdicts:
        bound = f"{'≥' if v.at_least else '≤'} {v.bound:g}"
        reached = "not measured" if v.reached is None else f"{v.reached:.2f}"
        spread = "" if v.low is None or v.high is None else f"{v.low:.2f} … {v.high:.2f}"
        said = {True: "met", False: "not met", None: ""}[v.met]
        lines.append(f"| {v.job} | {v.what} | {bound} | {reached} | {spread} | {said} |")
    return lines


def _contestants(session: Session) -> list[str]:
    lines = [
        "| job | contestant | seconds | Mpx/s | haloflow's speed ÷ its | answer | remarks |",
        "|---|---|---|---|---|---|---|",
    ]
    for job, side, measured in session:
        lines.append(f"| **{job.name}** | {job.title}; {side}² | | | | {_verified(measured)} | {_doubling(measured)} |")
        for name, result in measured.results.items():
            seconds, ratio = _median(result), speed(measured.results, name)
            figures = "– | – | –"
            if seconds is not None and ratio is not None:
                figures = f"{seconds:.2f} | {side**2 / 1e6 / seconds:.1f} | {ratio:.2f}"
            lines.append(f"| | {name} | {figures} | {_answer(result)} | {result.note} |")
    return lines


def _verified(measured: Measured) -> str:
    return "" if measured.verified is None else f"{measured.verified:.1e} from float64"


def _doubling(measured: Measured) -> str:
    found = measured.doubling
    return f"two workers that only count: {median(found):.2f} ({min(found):.2f} … {max(found):.2f}) times one"


def _answer(result: Result) -> str:
    if result.difference is None:
        return ""
    border = f" inside of a border of {result.margin}" if result.margin else ""
    return f"{'the same' if result.agrees else 'DIFFERS'} to {result.difference:.1e}{border}"


def _plot(file: Path, session: Session, machine: Mapping[str, Any]) -> None:
    """Draw megapixels a second, a panel a job."""
    columns = min(3, len(session))
    rows = -(-len(session) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 2.6 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(session) :]:
        axis.set_axis_off()
    for axis, (job, side, measured) in zip(axes.flat, session, strict=False):
        shown = [(name, side**2 / 1e6 / s) for name, r in measured.results.items() if (s := _median(r)) is not None]
        colours = ["#c1440e" if n == "haloflow" else "#222222" if n == "limit" else "#8aa0b4" for n, _ in shown]
        bars = axis.barh([name for name, _ in shown], [rate for _, rate in shown], color=colours)
        axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axis.set_title(f"{job.name}: {job.title}", fontsize=8)
        axis.set_xlabel("megapixels a second", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{machine['processor']}, two workers of one thread, {machine['date'][:10]}", fontsize=9)
    figure.savefig(file, dpi=120)
    plt.close(figure)
