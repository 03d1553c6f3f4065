"""The work of an ingest: units read and written by several threads, each recorded when it is done."""

import json
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import zarr

from pipeline.errors import HaloflowError, OutputError
from pipeline.ingesting.layout import Layout
from pipeline.ingesting.records import Done, Records
from pipeline.ingesting.targets import is_empty, writing
from pipeline.pictures.base import Block, Picture, reading
from pipeline.pixels import PixelScale
from pipeline.storage.images import stem
from pipeline.storage.lock import Lock
from pipeline.storage.metadata import Placed, Window, describe
from pipeline.storage.place import Place
from pipeline.storage.unfinished import ARRAY, INGEST

_FORMAT = 1


@dataclass
class Work:
    """One ingest: what it reads and writes, and what it records."""

    path: str
    store: str
    place: Place
    picture: Picture
    layout: Layout
    records: Records
    progress: Callable[[int, int], None] | None

    def begin(self, identity: dict[str, Any]) -> None:
        """Make the store and its empty array, marked as unfinished; what stood there is removed."""
        mark = {"format": _FORMAT, **identity, "path": self.path, "layout": self.layout.to_dict(), "complete": False}
        head = {"zarr_format": 3, "node_type": "group", "attributes": {INGEST: mark}}
        with writing(self.store):
            there = is_empty(self.place)  # a folder of the user's, which may have rights of its own
            if not there:
                self.place.delete()
            if not self.place.create("zarr.json", json.dumps(head).encode()):
                raise OutputError(f"{self.store} was made meanwhile by another program; name another place")
            try:
                self.layout.create(self.place / ARRAY, {INGEST: mark})
            except OSError:
                for key in (ARRAY, "zarr.json"):
                    self.place.delete(key)
                if self.place.is_local and not there:
                    with suppress(OSError):
                        self.place.path.rmdir()
                raise

    def resume(self, told: dict[str, Any], identity: dict[str, Any]) -> dict[int, Done]:
        """Return what is done, having checked that it is the same ingest."""
        if told.get("format") != _FORMAT:
            raise OutputError(f"{self.store} was begun by another version of haloflow; give --overwrite to start anew")
        if {key: told.get(key) for key in identity} != identity:
            raise OutputError(
                f"{self.store} was begun from {told.get('source')} as it was then ({told.get('bytes')} bytes), and "
                f"{self.path} is another file or has changed; give --overwrite to start anew"
            )
        before, now = told.get("layout"), self.layout.to_dict()
        if not isinstance(before, dict) or before.keys() != now.keys():
            raise OutputError(f"{self.store} has damaged records; give --overwrite to start anew")
        # Units follow the memory as well, which a second start may have less of: the first one's hold.
        other = [key for key in now if before[key] != now[key] and key != "band"]
        if other:
            raise OutputError(
                f"{self.store} was begun with {', '.join(f'{key} {before[key]}' for key in other)}, and now it is "
                f"{', '.join(f'{key} {now[key]}' for key in other)}; give the same, or --overwrite to start anew"
            )
        self.layout = replace(self.layout, band=tuple(before["band"]))
        with writing(self.store):
            if self.place.read(f"{ARRAY}/zarr.json") is None:
                self.layout.create(self.place / ARRAY, {INGEST: told})
            if self.place.is_local:  # what a killed writer left: zarr writes these and renames them
                for stray in self.place.path.rglob("*.partial"):
                    stray.unlink(missing_ok=True)
            if told.get("complete"):
                return {number: Done(number) for number in range(self.layout.count)}
            return {number: done for number, done in self.records.load().items() if number < self.layout.count}

    def do(self, known: dict[int, Done], workers: int, lock: Lock) -> None:
        """Do what is not done, and finish the store; raises `RunError` where another has taken the store over."""
        done, total = dict(known), self.layout.count
        with writing(self.store):
            array = self.layout.open(self.place / ARRAY)
        todo = ((n, block) for n, block in enumerate(self.layout.units()) if n not in known)
        advice = "; once that is mended, give --resume to go on"
        pool, running = ThreadPoolExecutor(workers, "ingest"), set[Future[Done]]()

        def finish(futures: set[Future[Done]]) -> None:
            made = [future.result() for future in futures]
            with writing(self.store, advice):
                self.records.add(made)
            done.update((one.unit, one) for one in made)
            if self.progress:
                self.progress(len(done), total)

        try:
            while True:
                for number, block in islice(todo, 2 * workers - len(running)):
                    running.add(pool.submit(self._unit, array, number, block, advice, lock))
                if not running:
                    break
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                failed = {future for future in ended if future.exception()}
                if ended > failed:
                    finish(ended - failed)
                for future in failed:
                    future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # nothing is written once the caller may remove the store
            whole = {f for f in running if not f.cancelled() and not f.exception()}
            with suppress(OSError, HaloflowError):  # a full disk takes no records either, and is told of already
                if whole:
                    self.records.add([f.result() for f in whole])
            raise
        pool.shutdown()
        with writing(self.store, advice):
            lock.check()
            self._mark(done)

    def _unit(self, array: Any, number: int, block: Block, advice: str, lock: Lock) -> Done:
        if lock.lost:
            lock.check()
        with reading(self.path):
            values = self.picture.read(block)
        with writing(self.store, advice):
            self.layout.write(array, block, values)
        if values.dtype.kind != "f":
            return Done(number)
        shown = values[np.isfinite(values)]
        if self.picture.nodata is not None:  # in float64, which holds what the pixels' own type may not
            shown = shown[shown.astype(np.float64) != self.picture.nodata]
        return Done(number, float(shown.min()), float(shown.max())) if shown.size else Done(number)

    def _mark(self, done: dict[int, Done]) -> None:
        """Write the OME-Zarr metadata together with the mark that all is done, and remove the records."""
        picture, layout = self.picture, self.layout
        if picture.dtype.startswith("float"):
            low, high = min(one.low for one in done.values()), max(one.high for one in done.values())
        else:
            low, high = PixelScale(picture.dtype).ends
        ome = describe(
            stem(self.store),
            [(axis, picture.units.get(axis)) for axis in layout.axes],
            [
                Placed(
                    ARRAY,
                    tuple(picture.scale.get(axis, 1.0) for axis in layout.axes),
                    tuple(picture.translation.get(axis, 0.0) for axis in layout.axes),
                )
            ],
            picture.channels,
            [Window.of(low, high)] * len(picture.channels),
        )
        layout.create(self.place / ARRAY, {})
        group: Any = zarr.open_group(self.place.store(), mode="r+")
        mark = {**group.attrs[INGEST], "complete": True}
        mark.pop("path", None)  # which only whoever goes on with it needs
        group.attrs.update({**ome, **picture.attributes, INGEST: mark})
        self.records.remove()
