"""One owner for a store: numbered locks, each made once.

Whoever makes the lock with the next number under ``_haloflow/lock`` owns the store, and only where the owner before
has let go or is dead may the next number be made. Making an object that must not be there is the one step that decides
between many. No lock is ever removed or made again, so a number is a fencing counter, too: an owner that was taken for
dead finds a higher one and ends.

An owner is dead where its process is gone (on this machine), or where it has given no sign of life for `DEAD` seconds
(on another, whose clock may be wrong: the sign is watched for a while before it is believed).

Late writes of a dead owner's workers do no harm. Whoever goes on with its store has the same plan, so they are the same
bytes, each put in place whole; their records say the same, too. And where the store was begun anew, it says with which
lock, and records of earlier ones count for nothing. Their segments are gone, and what they had not yet put into its
place: a worker looks for its segment before each unit is put there. In a bucket, which has no such step, it looks for a
lock with a higher number, but not more often than once in a second: of a worker that was stopped, and goes on after its
store was begun anew, what is on its way then may arrive.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import OutputError, PlaceError, RunError
from pipeline.storage.images import RESERVED
from pipeline.storage.machine import boot, namespace, process_started, process_ticks
from pipeline.storage.place import Place

FOLDER = f"{RESERVED}/lock"

BEAT = 5.0
"""Seconds between two signs of life."""

DEAD = 60.0
"""Seconds without a sign of life after which an owner on another machine is dead."""


@dataclass(frozen=True)
class Owner:
    """Whose lock it is."""

    counter: int
    run: str
    host: str
    boot: str
    namespace: str
    pid: int
    started: float
    """When the process was started, in seconds of the epoch: numbers of processes are used again."""
    since: float
    ticks: int | None = None
    """When the process was started, in ticks since the system's start, where that is known."""

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).isoformat(timespec="seconds")
        return f"run {self.run[:8]} (process {self.pid} on {self.host}, since {since})"


@dataclass(frozen=True)
class Held:
    """A store's latest lock, and what its owner last said of itself."""

    owner: Owner
    beat: Mapping[str, Any]

    @property
    def released(self) -> bool:
        """Whether the owner has let go."""
        return bool(self.beat.get("released"))

    @property
    def age(self) -> float:
        """Seconds since the last sign of life."""
        return time.time() - float(self.beat.get("time", self.owner.since))

    def alive(self) -> bool | None:
        """Say whether the owner lives; None where only watching for a sign of life could tell: on another machine."""
        if self.released or self.owner.run in _UNSAID:
            return False
        if (self.owner.host, self.owner.boot, self.owner.namespace) == (*boot(), namespace()):
            started = process_started(self.owner.pid)
            ticks = process_ticks(self.owner.pid)
            if started is not None and None not in (ticks, self.owner.ticks):
                return ticks == self.owner.ticks
            return started is not None and abs(started - self.owner.started) < 1
        if abs(self.age) < DEAD:
            return True
        return None


_UNSAID: set[str] = set()
"""Runs of this process that have let go of their stores and could not say so there."""


def look(store: Place) -> Held | None:
    """Return a store's latest lock, or None where it has none.

    The numbers have no gaps, so a few keys are read: a listing is slow and dear in a bucket.
    """
    low, high = 0, 1
    while store.read(_key(high)) is not None:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if store.read(_key(middle)) is not None else (low, middle)
    if not low:
        return None
    key = _key(low)
    try:
        owner = Owner(**json.loads(store.read(key) or b""))
        key = _beat(owner.counter)
        beat = json.loads(store.read(key) or b"{}")
    except (TypeError, ValueError) as error:
        raise OutputError(
            f"{store}/{key}: the lock is damaged ({error}); if no run is at work in the store, delete {store}/{FOLDER}"
        ) from None
    return Held(owner, beat)


KEY = "output.store: "
"""What names a run's store in its config, before an error."""


def refuse_if_held(store: Place, key: str = KEY, *, watch: bool = False) -> int:
    """Return the number of a store's latest lock, whose owner has let go or is dead; 0 where there is none.

    Raises `OutputError` that names the owner where one holds the store; ``key`` stands before the words.
    """
    held = look(store)
    if held is None:
        return 0
    alive = held.alive()
    if alive is None and watch:
        limit = time.monotonic() + 2 * BEAT + 2
        while time.monotonic() < limit and alive is None:
            time.sleep(BEAT / 5)
            now = look(store)
            alive = True if now != held else None
    if alive:
        raise OutputError(
            f"{key}{store} is being written by {held.owner}; wait for it or stop it, or name another store"
        )
    return held.owner.counter


@dataclass
class Lock:
    """A store that this run owns, until `release`. A thread gives signs of life and sees whether it still does."""

    store: Place
    owner: Owner
    news: Callable[[], Mapping[str, Any]] = dict
    """What to tell with each sign of life."""
    lost: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def counter(self) -> int:
        """The number of the lock."""
        return self.owner.counter

    def begin(self, news: Callable[[], Mapping[str, Any]]) -> None:
        """Begin to give signs of life."""
        self.news = news
        thread = threading.Thread(target=self._beat, name="haloflow-lock", daemon=True)
        thread.start()
        self._thread = thread  # a signal may come before it has started, and then there is nothing to wait for

    def check(self) -> None:
        """Raise `RunError` where another run has taken the store over."""
        self.lost = self.lost or is_followed(self.store, self.counter)
        if self.lost:
            raise RunError(f"{self.store} was taken over by another run, so this one has ended")

    def release(self, state: str) -> None:
        """Let go of the store; ``state`` says how the run ended."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        try:
            if self._stands():  # else it was removed, with its store
                self._say({**self.news(), "released": True, "state": state})
        except (OSError, PlaceError):  # the run's own end counts
            _UNSAID.add(self.owner.run)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError, PlaceError):  # a store that cannot be reached shows in the tasks
                if self._stands():
                    self._say({**self.news(), "state": "running"})
                self.lost = self.lost or is_followed(self.store, self.counter)

    def _stands(self) -> bool:
        """Say whether the lock is there, and not another one of its number in a store made where this one was."""
        return self.owner.run.encode() in (self.store.read(_key(self.counter)) or b"")

    def _say(self, beat: Mapping[str, Any]) -> None:
        self.store.write(_beat(self.counter), json.dumps({**beat, "time": time.time()}).encode())


def acquire(store: Place, key: str = KEY) -> Lock:
    """Take a store; raises `OutputError` that names the owner where another holds it, or takes it at this moment."""
    # The next number is that of this look: of a later one's lock nobody knows whether its owner lives.
    before = refuse_if_held(store, key, watch=True)
    host, started = boot()
    owner = Owner(
        counter=before + 1,
        run=uuid.uuid4().hex,
        host=host,
        boot=started,
        namespace=namespace(),
        pid=os.getpid(),
        started=process_started(os.getpid()) or 0.0,
        since=time.time(),
        ticks=process_ticks(os.getpid()),
    )
    store.create(_key(owner.counter), json.dumps(asdict(owner)).encode())
    now = look(store)  # and no answer counts: that of the first try may have been lost, and the second finds it there
    if now is None or now.owner != owner:
        by = f" by {now.owner}" if now else ""
        raise OutputError(f"{key}{store} has just been taken{by}; wait for it or stop it, or name another")
    return Lock(store, owner)


def is_followed(store: Place, counter: int) -> bool:
    """Say whether a lock was made after the one of a number."""
    return store.read(_key(counter + 1)) is not None


def _key(counter: int) -> str:
    return f"{FOLDER}/{counter:06}.json"


def _beat(counter: int) -> str:
    return f"{FOLDER}/{counter:06}.beat"
