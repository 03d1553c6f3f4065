"""The short form of `scripts/chaos`: a worker is killed, then the client, and what comes of it is right to the bit."""

from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_what_is_killed_is_recovered_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from breaking.faults import STORE, Row, resume  # noqa: PLC0415 - scripts are no package of ours
    from breaking.room import Room, kill  # noqa: PLC0415

    room, row = Room(tmp_path, side=768), Row("worker killed, then client")
    broken = room.start(STORE, "--workers", "2")
    assert broken.wait(room.files // 8)
    (_, one) = broken.workers()
    assert kill(one)
    assert broken.wait(room.files // 2)
    under_way = len(broken.workers())
    broken.child.kill()
    row.injected = 2
    resume(room, row, row.take(broken.end()), 2, under_way, "--cluster", "serial")
    assert row.is_clean, row
    assert row.resumed == 1
    assert row.recomputed is not None
