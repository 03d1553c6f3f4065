"""What a store keeps of its latest run for people to read: `target.RUN`, JSON."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pipeline.agreement import own
from pipeline.errors import HaloflowError
from pipeline.execute.crew import Crew
from pipeline.execute.report import Report
from pipeline.planning import Plan
from pipeline.storage import target


class RunFile:
    """The file of a run: written when the work begins, and again when it has ended.

    It holds ``state`` (``running``, ``complete``, ``failed`` or ``interrupted``), ``config``, ``versions``, ``plan``
    (what holds for all images; the whole plan is in the attributes of the store), ``cluster`` and its ``workers``,
    ``timings``, and the ``report`` of a run that came to its end.
    """

    def __init__(self, plan: Plan, cluster: str, crew: Crew) -> None:
        self._plan = plan
        self._clock = time.perf_counter()
        first = plan.images[0]
        kernels = zip(first.stack.operations, first.stack.choices, strict=True)
        self._told: dict[str, Any] = {
            "config": dict(plan.config),
            "versions": dict(own()),
            "plan": {
                "images": len(plan.inputs),
                "memory_limit": plan.memory,
                "peak_memory": first.peak_memory,
                "kernels": {operation.name: choice.backend for operation, choice in kernels},
            },
            "cluster": cluster,
            "workers": crew.workers,
            "dashboard": crew.dashboard,
        }
        self._started = datetime.now(UTC).isoformat(timespec="seconds")

    def begin(self) -> None:
        """Write that work begins."""
        self._write("running", {"started": self._started}, None)

    def end(self, report: Report) -> None:
        """Write how the run ended, just before the store is marked as complete."""
        self._end("complete" if report.complete else "failed", report)

    def break_off(self) -> None:
        """Write that the run came to no end, where that is possible: what stopped it may be the storage."""
        with suppress(OSError, HaloflowError):
            if self._plan.store.exists():  # what has been removed is not begun again
                self._end("interrupted", None)

    def _end(self, state: str, report: Report | None) -> None:
        seconds = time.perf_counter() - self._clock
        timings: dict[str, Any] = {
            "started": self._started,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
        }
        if report:
            made = report.done - report.resumed
            timings["tasks_per_second"] = round(made / max(seconds, 1e-9), 3)
        self._write(state, timings, report)

    def _write(self, state: str, timings: Mapping[str, Any], report: Report | None) -> None:
        told = {"state": state, **self._told, "timings": timings, "report": report.to_dict() if report else None}
        self._plan.store.write(target.RUN, json.dumps(told, indent=2).encode())
