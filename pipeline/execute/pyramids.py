"""What is left of pyramids when the tasks of a run are done: level after level, each from the one before."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from pipeline.execute import serial
from pipeline.execute.task import Failed, Outcome
from pipeline.planning import LevelPlan, Plan, Rest
from pipeline.storage.records import Segments

SMALL = 2**24
"""Pixels of a level, all its channels counted, up to which this process makes it: workers would not be worth it."""


def finish(
    plan: Plan,
    failed: Collection[int],
    segments: Segments,
    execute: Callable[[Rest, Segments], Iterator[Outcome]],
    check: Callable[[], None],
) -> list[dict[str, Any]]:
    """Make the levels that no task made along with its map; return what failed, for the report.

    Parameters
    ----------
    plan
        Of the run.
    failed
        The images of which a task failed: their pyramids are left as they are.
    segments
        Where the records go.
    execute
        Runs many write units at a time.
    check
        Called before each level; raises where the store is no longer this run's.
    """
    left = [(image, k.array) for n, image in enumerate(plan.images) if n not in failed for k in image.kept]
    failures = []
    for number in range(1, max((len(m.levels) for _, m in left), default=0)):
        due = [(image, m) for image, m in left if number < len(m.levels) and not m.levels[number].along]
        if not due:
            continue
        check()
        rest = Rest(tuple(LevelPlan(plan.store, m, number) for _, m in due))
        run = serial.run if rest.pixels <= SMALL else execute
        wrong = {outcome.image: outcome.reason for outcome in run(rest, segments) if isinstance(outcome, Failed)}
        for place, reason in sorted(wrong.items()):
            image, m = due[place]
            failures.append({"image": image.source.path, "task": f"level {number} of {m.layer}", "reason": reason})
            left.remove(due[place])
    return failures
