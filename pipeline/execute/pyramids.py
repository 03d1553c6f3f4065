"""What is left of an image's pyramids when its tasks are done: level after level, each from the one before."""

from typing import Any

from pipeline.planning import ImagePlan, LevelPlan

SMALL = 2**24
"""Pixels of a level, all its channels counted, up to which this process makes it: workers would not be worth it."""


class Climb:
    """The levels of an image's maps that no task made along with them, from below.

    A map of which a level fails is left as it is from there on; ``failures`` tells of it, for the report.
    """

    def __init__(self, image: ImagePlan) -> None:
        self._image = image
        self._left = [kept.array for kept in image.kept]
        self._level = 0
        self.failures: list[dict[str, Any]] = []

    def next(self) -> list[LevelPlan]:
        """Return what there is to make of the next level of which there is anything; nothing from the top on."""
        top = max((len(m.levels) for m in self._left), default=0)
        while self._level + 1 < top:
            number = self._level = self._level + 1
            due = [m for m in self._left if number < len(m.levels) and not m.levels[number].along]
            if due:
                return [LevelPlan(self._image.store, m, number) for m in due]
        return []

    def fail(self, plan: LevelPlan, reason: str) -> None:
        """Take note that a level could not be made."""
        if plan.array in self._left:
            self._left.remove(plan.array)
            task = f"level {plan.level} of {plan.array.layer}"
            self.failures.append({"image": self._image.source.path, "task": task, "reason": reason})
