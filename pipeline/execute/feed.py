"""What an executor works through: images, and levels of pyramids, one after another as they come up."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from pipeline.planning import ImagePlan, LevelPlan


@dataclass(frozen=True)
class Work:
    """Blocks to make of one image or level; outcomes name it by its ``number``, which is its own in a run."""

    number: int
    plan: ImagePlan | LevelPlan
    blocks: Sequence[int]

    @property
    def seconds(self) -> float:
        """A rough forecast of what one block takes."""
        return self.plan.seconds / max(1, len(self.plan.blocks))


class Feed:
    """Gives work, piece by piece: what comes up on the way before what is still to be looked at.

    Work is looked at when it is asked for, so that a run begins when the first of ten thousand images is planned.

    Parameters
    ----------
    works
        What there is to make, in order; None for an image that is looked at and of which there is nothing to make.
    """

    def __init__(self, works: Iterable[Work | None] = ()) -> None:
        self._works = iter(works)
        self._ended = False
        self._more: deque[Work] = deque()

    @classmethod
    def of(cls, plans: Iterable[ImagePlan | LevelPlan]) -> Self:
        """Return a feed of all blocks of some plans, numbered from 0."""
        return cls(Work(number, plan, plan.blocks) for number, plan in enumerate(plans))

    def add(self, work: Work) -> None:
        """Take work that has come up, such as the levels of an image whose tasks are done."""
        self._more.append(work)

    @property
    def left(self) -> bool:
        """Whether there may be more now; yet more may come up when outcomes are known."""
        return bool(self._more) or not self._ended

    def look(self) -> Work | None:
        """Look at what is next, and return what of it is to be made, if anything."""
        if not self._more:
            try:
                if work := next(self._works):
                    return work
            except StopIteration:
                self._ended = True
        # To look at what is next may bring up more: an image of which only levels are left.
        return self._more.popleft() if self._more else None

    def take(self) -> Work | None:
        """Return the next work, or None where there is none now."""
        work = None
        while work is None and self.left:
            work = self.look()
        return work

    def put_back(self, work: Work) -> None:
        """Give back what was taken: it is the next again."""
        self._more.appendleft(work)
