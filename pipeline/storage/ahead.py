"""Places far away are asked several at once, while this thread does other things: each answer takes its time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import islice
from threading import Thread
from typing import TypeVar

from pipeline.storage.place import Place

TOGETHER = 8
"""Places that are asked at once."""

T = TypeVar("T")


def ask(place: Place, question: Callable[[], T]) -> Future[T]:
    """Ask something about a place: here and now where it is local, in another thread where it is not.

    Nobody waits for that thread when the process ends, for whom it asks may be silent.
    """
    answer = Future[T]()

    def find() -> None:
        try:
            answer.set_result(question())
        except Exception as error:  # noqa: BLE001 - whoever takes the answer gets it
            answer.set_exception(error)

    if place.is_local:
        find()
    else:
        Thread(target=find, daemon=True).start()
    return answer


def in_turn(places: Iterable[Place], question: Callable[[Place], T]) -> Iterator[Future[T]]:
    """Give the answers about places in their order; of those that are not local the next ones are asked for meanwhile.

    A local one is asked when it is its turn.
    """
    left, begun = iter(places), deque[tuple[Place, Future[T] | None]]()
    while True:
        for place in islice(left, TOGETHER - len(begun)):
            begun.append((place, None if place.is_local else ask(place, partial(question, place))))
        if not begun:
            return
        place, answer = begun.popleft()
        yield answer or ask(place, partial(question, place))
