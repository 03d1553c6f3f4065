"""How far a store is, and whether what was written is still what is there: from its records alone."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.describe import size
from pipeline.errors import OutputError, counted
from pipeline.ingesting.targets import told_of
from pipeline.storage import tablefiles, target
from pipeline.storage.identity import digest
from pipeline.storage.intact import Intact
from pipeline.storage.lock import Held, look
from pipeline.storage.place import Place
from pipeline.storage.recorded import NONE, Records, begun_with, read
from pipeline.storage.records import units_in
from pipeline.storage.unfinished import INGEST, refuse_unfinished


@dataclass(frozen=True)
class Status:
    """How far a run is. ``done`` and ``missing`` count write units of the maps and of their levels.

    ``rate`` is tasks a second.
    """

    store: str
    state: str
    """``running``, ``complete``, ``failed``, ``interrupted`` or ``dead``: its run ended without a word."""
    images: int
    done: int
    missing: int
    failed: int
    """The tasks that failed in the latest run."""
    rate: float | None
    owner: str | None
    """Who holds the store, or held it last."""

    def to_dict(self) -> dict[str, Any]:
        """Return the status as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.store}: {self.state}: {self.done} of {counted(self.done + self.missing, 'write unit')} done, "
            f"{self.missing} missing, {counted(self.failed, 'task')} failed; {counted(self.images, 'image')} begun"
        ]
        if self.state == "running" and self.rate:
            lines.append(f"  {self.rate:.1f} tasks a second")
        if self.owner:
            lines.append(f"  {'held by' if self.state == 'running' else 'last held by'} {self.owner}")
        if self.state in ("failed", "interrupted", "dead"):
            lines.append("  go on with 'haloflow run CONFIG --resume'")
        return "\n".join(lines)


def status(store: str, options: Mapping[str, Any] | None = None) -> Status:
    """Return how far the run of a store is; raises `OutputError` where no run of ours has begun one there."""
    place = Place.of(store, options)
    held, record = _opened(place)
    done, planned, images = _counted(read(place, _plan(record), begun_with(record), doubt=NONE))
    beat = held.beat if held else {}
    return Status(
        store=store,
        state=_state(held, complete=bool(record.get("complete"))),
        images=images,
        done=done,
        missing=max(0, planned - done),
        failed=int(beat.get("failed", 0)),
        rate=beat.get("rate"),
        owner=str(held.owner) if held else None,
    )


def _state(held: Held | None, *, complete: bool) -> str:
    if held and held.alive() is not False:
        return "running"
    if complete:
        return "complete"
    return str(held.beat.get("state", "dead")) if held and held.released else "dead"


def _opened(place: Place) -> tuple[Held | None, Mapping[str, Any]]:
    """Return who holds a store, and what it says of its run."""
    try:
        held, record = look(place), target.recorded(place)
        if record is None:
            refuse_unfinished(str(place), {INGEST: told_of(place)})
    except OSError as error:
        raise OutputError(f"{place}: cannot be read: {error.strerror}") from None
    if held is None and record is None:
        raise OutputError(f"{place}: no run has begun a store there")
    return held, record or {}


def _plan(record: Mapping[str, Any]) -> str:
    """Return what names the plan that a store's records hold for."""
    return digest(record.get("identity", {}))


def _counted(found: Records) -> tuple[int, int, int]:
    """Return the write units that are recorded, those that are planned, and the images that were begun.

    Of both are those of the maps and of their levels.
    """
    images = found.planned()
    planned = {path: array for arrays in images.values() for path, array in arrays.items()}
    done = sum(found.made(path, counts) for path, (counts, _) in planned.items())
    return done, sum(units for _, units in planned.values()), len(images)


@dataclass(frozen=True)
class Checked:
    """What a reading of everything that was written has found."""

    store: str
    units: int
    bytes: int
    """Of the write units."""
    faults: tuple[str, ...]
    tables: int = 0

    @property
    def passed(self) -> bool:
        """Whether all is as it was written."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        return {**asdict(self), "faults": list(self.faults), "passed": self.passed}

    def __str__(self) -> str:
        verdict = "all as written" if self.passed else f"{len(self.faults)} NOT as written"
        tables = f" and {counted(self.tables, 'table')}" if self.tables else ""
        lines = [f"{self.store}: {self.units} write units, {size(self.bytes)}{tables} read again: {verdict}"]
        return "\n".join([*lines, *self.faults])


def check(store: Place) -> Checked:
    """Read all that a store's records name, and its tables, and hold it against their checksums.

    Raises `OutputError` where no run of ours has begun a store there, or nothing is left that says of which run it is.
    """
    record = _opened(store)[1]
    if not record:
        raise OutputError(f"{store}: its record of the run is missing or damaged, so nothing of it can be checked")
    plan, since, stored = _plan(record), begun_with(record), Intact(store)
    count, total, noted = 0, 0, tablefiles.noted_in(record)
    faults: dict[str, str] = {}
    for units in units_in(store, plan, since):
        count, total = count + len(units.sizes), total + sum(units.sizes)
        faults |= dict(stored.faults(units))
    # A unit that was written twice is as it should be where one of its records says so.
    for units in units_in(store, plan, since) if faults else ():
        if units.array not in faults and (named := faults.keys() & set(stored.keys(units))):
            for key in named - dict(stored.faults(units)).keys():
                del faults[key]
    return Checked(
        str(store),
        count,
        total,
        (*faults.values(), *_unrecorded(store, record), *tablefiles.faults(store, noted)),
        len(noted),
    )


def _unrecorded(store: Place, record: Mapping[str, Any]) -> Iterator[str]:
    """Say of a complete run what it has no record of."""
    if not record.get("complete"):
        return
    done, planned, begun = _counted(read(store, _plan(record), begun_with(record), doubt=NONE))
    if begun < (images := _images(record)):
        has = "has" if images == 1 else "have"
        yield f"{images - begun} of {counted(images, 'image')} {has} no record: it is missing or damaged"
    if done < planned:
        yield f"{planned - done} of {planned} write units have no record: it is missing or damaged"


def _images(record: Mapping[str, Any]) -> int:
    """Return how many images a complete run had; one where its report is damaged, for it had some."""
    report = record.get("report")
    images = report.get("images") if isinstance(report, dict) else None
    return images if isinstance(images, int) else 1
