"""The faults, each injected into real processes: what was injected, and what came of it."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

import zarr

from breaking.room import Ended, Room, files, kill, recorded

STORE = "maps.zarr"

PAGE = 4096
"""Bytes that a file of a file system in memory takes up, or several times as many."""


@dataclass
class Row:
    """What came of one kind of fault.

    ``resumed`` counts how often ``--resume`` was needed. Of write units of which anything stood in the store at the
    fault, ``recomputed`` were made again, and at most as many as were ``under_way`` may be; None where nobody counts.
    ``slow`` are commands that did not end within their time, ``orphans`` processes that outlived theirs.
    """

    fault: str
    injected: int = 0
    recovered: int = 0
    resumed: int = 0
    recomputed: int | None = None
    under_way: int | None = None
    wrong: int = 0
    orphans: int = 0
    litter: int = 0
    slow: int = 0

    def take(self, ended: Ended) -> Ended:
        """Count what a command left."""
        self.orphans += ended.orphans
        self.slow += ended.code == 124
        return ended

    def count(self, again: int, under_way: int) -> None:
        """Count the write units that were made again, and how many may have been."""
        self.recomputed = (self.recomputed or 0) + again
        self.under_way = (self.under_way or 0) + under_way
        if again > under_way:
            print(f"{self.fault}: {again} units were made again, and {under_way} were under way")
            self.wrong += 1

    @property
    def is_clean(self) -> bool:
        """Whether all was recovered and nothing is wrong."""
        return self.injected == self.recovered and not (self.wrong or self.orphans or self.litter or self.slow)


def table(rows: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    names = [field.name for field in fields(Row)]
    lines = [f"| {' | '.join(names).replace('_', ' ')} |", "|---|" + "---:|" * (len(names) - 1)]
    for row in rows:
        told = [getattr(row, name) for name in names]
        lines.append(f"| {' | '.join('' if value is None else str(value) for value in told)} |")
    return "\n".join(lines)


def go_on(room: Room, row: Row, ended: Ended, injected: int, limit: int = 5) -> None:
    """Resume a broken run until it is whole, and hold its store against the one made in peace."""
    while ended.code and limit:
        ended = row.take(room.run(STORE, "--resume"))
        row.resumed += 1
        limit -= 1
    if ended.code:
        print(f"{row.fault}: not recovered: {ended.told}")
    else:
        row.recovered += injected
        wrong, litter = room.wrong(STORE), room.litter(STORE)
        if wrong or litter:
            print(f"{row.fault}: wrong: {', '.join(wrong[:5]) or 'none'}; litter: {', '.join(litter[:5]) or 'none'}")
        row.wrong += len(wrong)
        row.litter += len(litter)
    shutil.rmtree(room.folder / STORE, ignore_errors=True)


def workers(room: Room, count: int, rng: random.Random) -> Row:
    """Kill a worker at random moments, from its start to its end; mostly the run has got on since the last kill."""
    row = Row("worker killed")
    while row.injected < count:
        broken = room.start(STORE)
        before = row.injected
        while broken.child.poll() is None and row.injected < count:
            if rng.random() < 0.75:
                broken.wait(broken.done + 1)
            time.sleep(rng.uniform(0.2, 2.5))
            if found := broken.workers():
                row.injected += kill(rng.choice(found))
        go_on(room, row, row.take(broken.end(600)), row.injected - before)
    return row


def clients(room: Room, count: int, rng: random.Random) -> Row:
    """Kill the client when a part of the write units stands: its workers see that nobody is there, and end."""
    row = Row("client killed")
    while row.injected < count:
        share = (0.1, 0.5, 0.9, 0.99)[row.injected % 4] * rng.uniform(0.95, 1)
        broken = room.start(STORE)
        killed = broken.wait(int(share * room.files))
        under_way = len(broken.workers())  # each at one task of one unit
        if killed:
            broken.child.kill()
            row.injected += 1
        resume(room, row, row.take(broken.end()), int(killed), under_way)
    return row


def resume(room: Room, row: Row, ended: Ended, injected: int, under_way: int, *words: str) -> None:
    """Go on with a store, and count the write units of which anything stood in it and which were made again.

    Levels of a pyramid are not counted: they are made again where a run goes on.
    """
    stood = {path.relative_to(path.parents[1]) for path in files(room.folder / STORE, "0")}
    if ended.code:
        ended = row.take(room.run(STORE, "--resume", *words))
        row.resumed += 1
        if not ended.code:
            row.count(len(stood) - recorded(room.folder / STORE)["resumed"], under_way)
    go_on(room, row, ended, injected)


def interrupted(room: Room, count: int, rng: random.Random) -> Row:
    """Interrupt, or end politely, the client alone or all its processes: what is under way is recorded first."""
    row = Row("Ctrl-C, SIGTERM")
    while row.injected < count:
        broken = room.start(STORE)
        if broken.wait(int(rng.uniform(0.05, 0.9) * room.files)):
            chosen = (signal.SIGINT, signal.SIGTERM)[row.injected % 2]
            broken.child.send_signal(chosen)
            row.injected += 1
            ended = row.take(broken.end())
            if ended.code not in (128 + chosen, 0):
                print(f"{row.fault}: ended with {ended.code}: {ended.told}")
                row.wrong += 1
            resume(room, row, ended, 1, 0)
        else:
            go_on(room, row, row.take(broken.end()), 0)
    return row


CALLS = "openat,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat"
"""What the system is asked for in making, naming and removing files."""


def traced(*how: str) -> tuple[str, ...]:
    """Return what stands before a command that is to run under strace."""
    return ("strace", "-f", "-q", *how)


def steps(room: Room, count: int, rng: random.Random) -> Row:
    """Kill a serial run at a step of its writing: as a file of the store is made, named or removed."""
    row = Row("killed at a step of a write")
    log = room.folder / "steps"
    go_on(room, row, room.run(STORE, "--cluster", "serial", before=traced("-o", str(log), f"--trace={CALLS}")), 0)
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        thread, _, call = line.partition(" ")
        name = call.strip().partition("(")[0]
        seen[thread, name] += 1  # strace counts by thread, too
        if STORE in call:
            found.append((name, seen[thread, name]))
    while row.injected < count:
        name, nth = rng.choice(found)
        inject = traced("-o", "/dev/null", f"--trace={name}", f"--inject={name}:signal=KILL:when={nth}")
        ended = row.take(room.start(STORE, "--cluster", "serial", before=inject).end(600))
        killed = int(ended.code != 0)
        row.injected += killed
        if ended.code and not (room.folder / STORE).exists():  # killed before there was anything
            row.recovered += 1
            continue
        resume(room, row, ended, killed, 1)
    return row


def errors(room: Room, count: int, rng: random.Random) -> Row:
    """Let the system fail to write, once or for good: tried again, and then a failed task, never a success."""
    row = Row("EIO, ENOSPC of the system")
    for number in range(count):
        how = ("EIO", "ENOSPC")[number % 2]
        first = rng.randint(20, room.files // 2)
        lasting = "" if number % 4 < 2 else "+"
        calls = "rename,renameat,renameat2"
        inject = traced("-o", "/dev/null", f"--trace={calls}", f"--inject={calls}:error={how}:when={first}{lasting}")
        ended = row.take(room.run(STORE, "--cluster", "serial", before=inject))
        row.injected += 1
        if lasting and not ended.code:
            print(f"{row.fault}: a run whose writes all failed called itself a success")
            row.wrong += 1
        go_on(room, row, ended, 1)
    return row


def full(room: Room, count: int, rng: random.Random) -> Row:
    """Let the disk be full, on a small file system of its own; then make room."""
    row = Row("disk full")
    small = room.folder / STORE
    need = sum(-(-len(data) // PAGE) * PAGE for data in room.whole.values())
    for _ in range(count):
        disk = room.folder / "disk"
        disk.mkdir(exist_ok=True)
        size = f"size={int(need * rng.uniform(0.5, 0.9))}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", disk], check=True)
        try:
            ended = row.take(room.run(f"disk/{STORE}"))
            row.injected += 1
            if "No space left" not in ended.told or ended.code != 3:
                print(f"{row.fault}: ended with {ended.code}: {ended.told[:300]}")
                row.wrong += 1
            subprocess.run(["mount", "-o", f"remount,size={4 * need + 2**24}", disk], check=True)
            ended = row.take(room.run(f"disk/{STORE}", "--resume"))
            row.resumed += 1
            shutil.copytree(disk / STORE, small)
        finally:
            subprocess.run(["umount", disk], check=True)
        go_on(room, row, ended, 1)
    return row


def corrupt(room: Room, count: int, rng: random.Random) -> Row:
    """Cut, empty or replace an input chunk: it is named, the rest is made, and once mended the run goes on."""
    row = Row("input chunk damaged")
    side = zarr.open_array(room.folder / "image.zarr", mode="r").shape[0] // 64
    for _ in range(count):
        chunk = room.folder / f"image.zarr/c/{rng.randrange(side)}/{rng.randrange(side)}"
        data = chunk.read_bytes()
        chunk.write_bytes(rng.choice([b"", data[: len(data) // 2], b"not a chunk", rng.randbytes(len(data))]))
        ended = row.take(room.run(STORE))
        chunk.write_bytes(data)
        row.injected += 1
        if ended.code != 3:
            print(f"{row.fault}: ended with {ended.code}: {ended.told[:300]}")
            row.wrong += 1
        go_on(room, row, ended, 1)
    return row


def second(room: Room, count: int, rng: random.Random) -> Row:
    """Start a second run, told to begin anew, into the store of one under way: it is refused, and harms nothing."""
    row = Row("second run into the store")
    for _ in range(count):
        broken = room.start(STORE)
        met = broken.wait(int(rng.uniform(0.05, 0.6) * room.files))
        if met:
            kill(broken.process, signal.SIGSTOP)  # so that it does not end before the other has begun
            refused = row.take(room.run(STORE, "--overwrite", "--cluster", "serial"))
            kill(broken.process, signal.SIGCONT)
            row.injected += 1
            if refused.code != 2 or "is being written by" not in refused.told:
                print(f"{row.fault}: ended with {refused.code}: {refused.told[:300]}")
                row.wrong += 1
        go_on(room, row, row.take(broken.end(600)), int(met))
    return row


FAULTS: dict[str, Callable[[Room, int, random.Random], Row]] = {
    "workers": workers,
    "clients": clients,
    "interrupted": interrupted,
    "steps": steps,
    "errors": errors,
    "full": full,
    "corrupt": corrupt,
    "second": second,
}
"""By the name of their option."""


def lacking(name: str) -> str:
    """Say what a fault needs that is not there, or nothing."""
    if name in ("steps", "errors") and not shutil.which("strace"):
        return "strace is not installed"
    if name == "full" and os.geteuid():
        return "only root can make a small file system"
    return ""
