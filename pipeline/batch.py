"""Many images as a sequence of which none is opened before it is asked for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
from typing import Generic, TypeVar, overload

from pipeline.errors import HaloflowError, PlaceError
from pipeline.storage.ahead import in_turn
from pipeline.storage.place import Place

S = TypeVar("S")
T = TypeVar("T")


class Batch(Sequence[T], Generic[S, T]):
    """What is made of each of some places, in their order, each time that it is asked for; no more than one is kept.

    A place of which nothing can be made is left out, and named in ``bad``. So a length, a number counted from the end
    and ``bad`` take a look at every place; to go through takes one at a time, and opens a few more ahead where they are
    far away.

    Parameters
    ----------
    places
        Where the images are.
    opened
        Of a place, in any thread; raises `HaloflowError` where it cannot.
    make
        Of what was opened, in this thread; raises the same.

    Raises
    ------
    HaloflowError
        The first place's, where nothing can be made of any of them; `PlaceError` where the first cannot be reached.
    """

    def __init__(self, places: Sequence[Place], opened: Callable[[Place], S], make: Callable[[S], T]) -> None:
        self.places = places
        self._opened = opened
        self._make = make
        self._bad: tuple[tuple[Place, str], ...] | None = None
        self._first = self._of_first()

    def _of_first(self) -> tuple[int, T]:
        errors: list[HaloflowError] = []
        for number, place in enumerate(self.places):
            try:
                return number, self._make(self._opened(place))
            except PlaceError:
                raise
            except HaloflowError as error:
                errors.append(error)
        raise errors[0]

    def attempt(self, number: int) -> T | HaloflowError:
        """Return what is made of the place of a number, or why nothing is."""
        (made,) = self.attempts([number])
        return made

    def attempts(self, numbers: Iterable[int]) -> Iterator[T | HaloflowError]:
        """Give what `attempt` returns for each of some numbers, in their order."""
        numbers, others = tee(numbers)
        answers = in_turn((self.places[n] for n in others if n != self._first[0]), self._opened)
        for number in numbers:
            try:
                yield self.first if number == self._first[0] else self._make(next(answers).result())
            except HaloflowError as error:
                yield error

    def _attempts(self) -> Iterator[tuple[Place, T | HaloflowError]]:
        return zip(self.places, self.attempts(range(len(self.places))), strict=True)

    @property
    def first(self) -> T:
        """The first one."""
        return self._first[1]

    @property
    def bad(self) -> tuple[tuple[Place, str], ...]:
        """The places of which nothing can be made, and why not."""
        if self._bad is None:
            self._bad = tuple((p, str(made)) for p, made in self._attempts() if isinstance(made, HaloflowError))
        return self._bad

    def __iter__(self) -> Iterator[T]:
        return (made for _, made in self._attempts() if not isinstance(made, HaloflowError))

    def __len__(self) -> int:
        return len(self.places) - len(self.bad)

    @overload
    def __getitem__(self, number: int) -> T: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[T]: ...

    def __getitem__(self, number: int | slice) -> T | Sequence[T]:
        if isinstance(number, slice):
            return tuple(self)[number]
        if number == 0:
            return self.first
        wanted = number if number > 0 else len(self) + number
        for at, made in enumerate(self):
            if at == wanted:
                return made
        raise IndexError(number)
