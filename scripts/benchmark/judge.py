"""From seconds to ratios, and whether they reach what was asked for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmark.jobs import Job, Target
from benchmark.measure import Measured, Result


@dataclass(frozen=True)
class Verdict:
    """One thing that was asked for, and what was reached; None if it could not be measured."""

    job: str
    what: str
    bound: float
    at_least: bool
    reached: float | None
    low: float | None = None
    high: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept."""
        if self.reached is None:
            return None
        return self.reached >= self.bound if self.at_least else self.reached <= self.bound

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "met": self.met}


def judge(job: Job, measured: Measured) -> list[Verdict]:
    """Return a verdict for each target of a job."""
    found = [_judge(job, target, measured.results) for target in job.targets]
    if job.recompute_at_most:
        found.append(Verdict(job.name, "recompute factor", job.recompute_at_most, False, measured.recompute))
    return found


def _judge(job: Job, target: Target, results: Mapping[str, Result]) -> Verdict:
    """Compare within each round, as the machine's speed drifts from round to round."""
    at_least = target.speed_at_least is not None
    others = [results.get(name, Result(name)).seconds for name in target.against]
    pairs = [(own, sum(rest)) for own, *rest in zip(results["haloflow"].seconds, *others, strict=False)]
    ratios = [other / own if at_least else own / other for own, other in pairs]
    bound = target.speed_at_least if at_least else target.time_at_most
    what = f"speed ÷ {target.against[0]}" if at_least else f"time ÷ ({' + '.join(target.against)})"
    known = (median(ratios), min(ratios), max(ratios)) if ratios else (None, None, None)
    return Verdict(job.name, what, bound or 0.0, at_least, *known)


def speed(results: Mapping[str, Result], name: str) -> float | None:
    """Return Haloflow's speed as a multiple of a contestant's: the median of the rounds' ratios."""
    pairs = zip(results["haloflow"].seconds, results[name].seconds, strict=False)
    ratios = [other / own for own, other in pairs]
    return median(ratios) if ratios else None
