"""What happened in a run."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import counted
from pipeline.execute.decisions import Decided


@dataclass(frozen=True)
class Report:
    """What happened in a run.

    ``tasks`` are those of all images, ``done`` of them are complete: ``resumed`` of these were so before.
    """

    store: str
    images: int
    tasks: int
    done: int
    resumed: int
    seconds: float
    pixels: int
    bytes_read: int
    bytes_written: int
    cluster: str
    started: str
    missing_chunks: int = 0
    """Chunks, or shards, of the images that are not stored, as far as that is known: they were taken for fill value."""
    failures: tuple[dict[str, Any], ...] = ()
    tables: tuple[str, ...] = ()
    """Where the tables lie, if any were asked for."""
    decided: Decided | None = None
    """What the table of decisions says, where there is one."""
    notes: tuple[str, ...] = ()
    """What the user should know of the images that this run has begun, as their plans say it."""

    @property
    def complete(self) -> bool:
        """Whether every task is done."""
        return self.done == self.tasks and not self.failures

    @property
    def failed(self) -> list[str]:
        """What failed, a line each."""
        return [_failed(**told) for told in self.failures]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            **asdict(self),
            "failures": list(self.failures),
            "tables": list(self.tables),
            "notes": list(self.notes),
            "decided": self.decided and self.decided.to_dict(),
            "complete": self.complete,
        }

    def __str__(self) -> str:
        made = self.pixels * (self.done - self.resumed) / max(1, self.tasks)
        rate = made / 1e6 / max(self.seconds, 1e-9)
        before = f" ({self.resumed} of them before)" if self.resumed else ""
        lines = [
            f"{self.done} of {counted(self.tasks, 'task')} done{before} in {self.seconds:.1f} s: "
            f"{counted(self.images, 'image')}, {self.pixels / 1e6:.1f} megapixels, {rate:.1f} a second; "
            f"results in {self.store}"
        ]
        if self.missing_chunks:
            chunks, are = counted(self.missing_chunks, "chunk"), "is" if self.missing_chunks == 1 else "are"
            lines.append(f"{chunks} of the input {are} not stored: taken as its fill value")
        lines += self.decided.lines() if self.decided else []
        lines += [f"table: {path}" for path in self.tables]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *self.failed])


def _failed(image: str, task: str, reason: str) -> str:
    where = image if task == "all" else f"{image}, task {task}"
    return f"failed: {where}: {reason.removeprefix(f'{image}: ')}"
