"""Fetches what workers have to tell, all of them together, and each alone that once did not answer."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

from distributed import Client, KilledWorker
from distributed.client import FutureCancelledError

from pipeline.execute.task import Outcome

PATIENCE = 5.0
"""Seconds that a fetch may take, and as long a worker that did not answer is left alone."""

APART = 0.01
"""Seconds between two fetches that are not to become one: distributed makes one of those that begin together."""

Told = list[tuple[Any, list[Outcome]]]
"""Futures, and the outcomes of each."""


class Fetch:
    """Fetches the outcomes of futures that have ended; a worker that does not answer holds up no other for long."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._mute: dict[str, float] = {}
        """Workers that did not answer, and since when."""

    def of(self, finished: Mapping[str, list[Any]]) -> Iterator[tuple[Any, list[Outcome]]]:
        """Give the futures whose outcomes came, of those that have ended at each worker, and the outcomes."""
        now = time.monotonic()
        heard = [worker for worker in finished if worker not in self._mute]
        alone = [worker for worker in finished if now - self._mute.get(worker, now) >= PATIENCE]
        groups = [group for group in (heard, *([worker] for worker in alone)) if group]
        if not groups:
            return
        for group, told in zip(groups, self._client.sync(self._all, finished, groups), strict=True):
            if told is None:
                # Whichever of them it was: each is asked alone from now on, and at once where it was not before.
                self._mute |= dict.fromkeys(group, now - PATIENCE if group is heard else time.monotonic())
                continue
            for worker in group:
                self._mute.pop(worker, None)
            yield from told

    async def _all(self, finished: Mapping[str, list[Any]], groups: list[list[str]]) -> list[Told | None]:
        under_way: list[asyncio.Future[Told | None]] = []
        for group in groups:
            if under_way:
                await asyncio.sleep(APART)
            futures = [future for worker in group for future in finished[worker]]
            under_way.append(asyncio.ensure_future(self._one(futures)))
        return await asyncio.gather(*under_way)

    async def _one(self, futures: list[Any]) -> Told | None:
        try:
            told = await asyncio.wait_for(self._client.gather(futures, asynchronous=True), PATIENCE)
        except (TimeoutError, KilledWorker, FutureCancelledError):
            return None  # a worker is lost at this moment, or hangs: again, when that is known
        return list(zip(futures, told, strict=True))
