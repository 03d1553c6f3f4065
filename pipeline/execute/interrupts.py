"""An interrupt ends a run in order: what is under way is finished and recorded; a second one ends it at once."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While this is entered, the first SIGINT or SIGTERM is noted, and the second does what it would have done before.

    Only the main thread hears signals; elsewhere nothing changes. What is ignored stays so: a shell lets what runs in
    the background of a script ignore SIGINT.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def heard(self) -> bool:
        """Say whether a signal has come."""
        return self.number is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def pass_on(self) -> None:
        """Do now what the noted signal would have done, if there was one."""
        self._restore()
        if self.number is not None:
            signal.raise_signal(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.number is not None:
            self._restore()
            signal.raise_signal(number)
        self.number = number

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
