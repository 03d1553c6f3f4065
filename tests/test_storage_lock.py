"""The store's own objects: segments of records, torn or not, and its one owner."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import OutputError, RunError
from pipeline.storage import lock, machine, recorded, records
from pipeline.storage.place import Place
from pipeline.storage.records import Segments, Units, units_in

Call = Callable[..., tuple[int, str, str]]

CUT = ["--cluster", "serial"]


def segment_of(store: Path, plan: str = "p", counter: int = 1) -> records.Segment:
    (store / records.FOLDER).mkdir(parents=True, exist_ok=True)
    return Segments(Place.of(str(store)), plan, counter).begin()


def units(row: int) -> Units:
    return Units("x/m/0", (0, row, 0), (1, 1, 2), (10, 20), (1, 2**32 - 1))


def read(store: Path) -> list[Units]:
    """The records of a store, which are the same units whether they are packed or not."""
    made = [*units_in(Place.of(str(store)), "p")]
    image = recorded.read(Place.of(str(store)), "p").images.get("x")
    rows = image.boxes["x/m/0"].rows if image else []
    assert [(tuple(row["first"]), tuple(row["counts"])) for row in rows] == [(u.first, u.counts) for u in made]
    return made


def test_torn_and_foreign_segments_count_for_nothing_and_the_rest_does(tmp_path: Path) -> None:
    first, other = segment_of(tmp_path), segment_of(tmp_path, plan="other")
    for row in range(4):
        first.append([units(row)])
        other.append([units(row + 10)])
    first.append({"image": "x", "units": {}})
    first.close()
    (file,) = (p for p in (tmp_path / records.FOLDER).iterdir() if b"other" not in p.read_bytes())
    whole = file.read_bytes()
    assert read(tmp_path) == [units(row) for row in range(4)]
    assert recorded.read(Place.of(str(tmp_path)), "p").events == [{"image": "x", "units": {}}]
    seen = set()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        some = read(tmp_path)
        assert some == [units(row) for row in range(len(some))]
        seen.add(len(some))
    assert seen == {0, 1, 2, 3, 4}
    for at in range(0, len(whole), 7):  # a flipped byte ends the segment there, and is never a record
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        some = read(tmp_path)
        assert some == [units(row) for row in range(len(some))]


def test_a_late_worker_of_a_replaced_store_writes_nothing(tmp_path: Path) -> None:
    late = segment_of(tmp_path / "s")
    late.append([units(1)])
    shutil.rmtree(tmp_path / "s" / records.FOLDER)
    with pytest.raises(RunError, match="replaced by another run"):
        late.check()
    with pytest.raises(RunError, match="replaced by another run"):
        late.append([units(2)])
    with pytest.raises(RunError, match="replaced by another run"):
        Segments(Place.of(str(tmp_path / "s")), "p", 1).begin().check()


RACE = """
import os, sys
from pipeline.errors import OutputError, RunError
from pipeline.storage.lock import acquire
from pipeline.storage.place import Place
gate, opened = os.pipe()
end, ended = os.pipe()
for _ in range(8):
    if not os.fork():
        os.read(gate, 1)
        try:
            acquire(Place.of("maps.zarr"))
            told = f"won {os.getpid()}"
        except OutputError as error:
            told = str(error)
        os.write(1, f"{told}\\n".encode())
        os.read(end, 1)  # the winner must live until all have looked
        os._exit(0)
os.write(opened, b"x" * 8)
sys.stdin.readline()
os.write(ended, b"x" * 8)
for _ in range(8):
    os.wait()
"""


def test_of_many_processes_one_gets_the_lock_and_the_others_name_it(tmp_path: Path) -> None:
    """Real processes behind a barrier: a pipe that all of them read from."""
    child = subprocess.Popen(
        [sys.executable, "-c", RACE], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin
    assert child.stdout
    told = [child.stdout.readline() for _ in range(8)]
    child.communicate("\n", timeout=60)
    (winner,) = (line.split()[1] for line in told if line.startswith("won"))
    others = [line for line in told if not line.startswith("won")]
    assert len(others) == 7
    for line in others:
        assert f"process {winner} on" in line


def test_a_lock_that_comes_between_two_looks_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, look = Place.of(str(tmp_path / "maps.zarr")), lock.look
    first: list[lock.Lock] = []

    def late(place: Place) -> lock.Held | None:
        """See nothing, and then another owner comes."""
        monkeypatch.setattr(lock, "look", look)
        seen = look(place)
        first.append(lock.acquire(place))
        return seen

    monkeypatch.setattr(lock, "look", late)
    with pytest.raises(OutputError, match=f"has just been taken by run {'[0-9a-f]' * 8}"):
        lock.acquire(store)
    first[0].check()
    held = look(store)
    assert held is not None
    assert held.owner == first[0].owner


def start(*words: str) -> "subprocess.Popen[str]":
    """A run of hundreds of chunks in a process of its own, once it is under way."""
    line = [sys.executable, "-m", "pipeline.cli", "run", "config.yaml", *CUT, "--set", "output.chunks=1", *words]
    child = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(Path().glob("maps.zarr/image/pool/0/c/*/*/*")):
        assert child.poll() is None
        time.sleep(0.01)
    return child


def test_a_killed_client_is_taken_over_and_a_living_one_is_not(small: Path, haloflow: Call) -> None:
    child = start()
    os.kill(child.pid, signal.SIGSTOP)
    words = ["run", "config.yaml", *CUT, "--set", "output.chunks=1"]
    told = json.loads(haloflow("status", "maps.zarr", "--json")[1])
    assert (told["state"], told["missing"] > 0) == ("running", True)
    assert f"process {child.pid} on" in told["owner"]
    for how in ([], ["--resume"], ["--overwrite"]):
        code, _, err = haloflow(*words, *how)
        assert code == 2
        assert "maps.zarr is being written by run" in err
        assert f"process {child.pid} on" in err
    child.kill()
    child.communicate()
    assert "maps.zarr: dead: " in haloflow("status", "maps.zarr")[1]
    assert "give --overwrite to replace it, --resume to go on with it" in haloflow(*words)[2]
    assert haloflow(*words, "--resume")[0] == 0
    store = zarr.open_group("maps.zarr", mode="r")
    assert store.attrs["_haloflow"]["complete"] is True
    expected = pipeline.load("config.yaml").stack(zarr.open_array("image.zarr", mode="r")[:])
    assert np.array_equal(store["image/pool/0"][:], expected)
    assert not list(Path("maps.zarr").rglob("*.partial"))


def held(**changes: object) -> lock.Held:
    host, boot = lock.boot()
    given = {
        "counter": 1,
        "run": "r" * 32,
        "host": host,
        "boot": boot,
        "namespace": lock.namespace(),
        "pid": os.getpid(),
        "started": lock.process_started(os.getpid()),
        "since": time.time(),
    }
    return lock.Held(lock.Owner(**{**given, **changes}), {})


def test_who_is_alive() -> None:
    assert held().alive() is True
    assert held(started=5.0).alive() is False  # the number was used again
    assert held(pid=2**22 + 1).alive() is False
    assert held(host="other").alive() is True  # it has just begun
    for late in (-2 * lock.DEAD, 3600):  # or its clock is wrong
        assert held(host="other", since=time.time() + late).alive() is None
    assert lock.Held(held().owner, {"released": True}).alive() is False


def test_who_a_process_is_does_not_follow_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = held(ticks=machine.process_ticks(os.getpid())), Path.read_text

    def stepped(path: Path, *given: Any, **more: Any) -> str:
        """Say that the system was started five seconds later, as when a clock is set."""
        text = read(path, *given, **more)
        return "".join(
            f"btime {int(line.split()[1]) + 5}\n" if line.startswith("btime") else line
            for line in text.splitlines(True)
        )

    monkeypatch.setattr(Path, "read_text", stepped)
    monkeypatch.setattr(machine.psutil.Process, "create_time", lambda _: time.time())
    assert before.alive() is True
    assert held(ticks=5).alive() is False


def test_of_an_owner_of_an_older_version_the_time_of_day_counts(tmp_path: Path) -> None:
    store = Place.of(str(tmp_path))
    lock.acquire(store)
    old = {name: value for name, value in held().owner.__dict__.items() if name != "ticks"}
    (tmp_path / lock.FOLDER / "000001.json").write_text(json.dumps(old))
    with pytest.raises(OutputError, match="is being written by run rrrrrrrr"):
        lock.acquire(store)


@pytest.mark.parametrize("place", ["maps.zarr", "memory://lock/maps.zarr"])
def test_who_lets_go_late_leaves_the_lock_of_a_store_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Place.of(place)
    first = lock.acquire(store)
    store.delete()
    second = lock.acquire(store)
    assert second.counter == first.counter
    first.release("refused")
    with pytest.raises(OutputError, match=f"is being written by run {second.owner.run[:8]}"):
        lock.acquire(store)
    store.delete()
    second.release("complete")
    assert lock.look(store) is None
    assert not store.exists()


def test_an_owner_that_could_not_say_that_it_has_let_go_has_for_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Place.of(str(tmp_path))
    first = lock.acquire(store)
    with monkeypatch.context() as patch:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Place, "write", full)
        first.release("interrupted")
    assert lock.acquire(store).counter == 2


def test_a_lock_is_held_whose_making_was_answered_only_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Place.create
    monkeypatch.setattr(Place, "create", lambda *given: create(*given) and create(*given))
    assert lock.acquire(Place.of(str(tmp_path))).counter == 1


def test_a_silent_owner_on_another_machine_is_watched_before_it_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)
    store = Place.of(str(tmp_path))
    first = lock.acquire(store)
    silent = held(host="other", since=time.time() - 2 * lock.DEAD)
    (tmp_path / lock.FOLDER / "000001.json").write_text(json.dumps(silent.owner.__dict__))
    second = lock.acquire(store)
    assert second.counter == 2
    with pytest.raises(pipeline.HaloflowError, match="taken over by another run"):
        first.check()
    second.check()
    second.release("complete")
    assert lock.acquire(store).counter == 3


@pytest.mark.parametrize("name", ["000001.json", "000001.beat"])
def test_a_damaged_lock_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    store = Place.of(str(tmp_path))
    lock.acquire(store).release("complete")
    (tmp_path / lock.FOLDER / name).write_text("{")
    with pytest.raises(OutputError, match=rf"{name}: the lock is damaged .* no run is at work .* delete .*lock$"):
        lock.acquire(store)
    shutil.rmtree(tmp_path / lock.FOLDER)
    assert lock.acquire(store).counter == 1
