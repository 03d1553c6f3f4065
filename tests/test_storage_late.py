"""Who comes too late: workers that outlive their client, notes that were not written, and what a disk has lost."""

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

import pipeline
from pipeline.errors import ClusterError, RunError
from pipeline.execute import running
from pipeline.status import check, status
from pipeline.storage import files, lock, machine, records, target
from pipeline.storage.place import Place
from pipeline.storage.pyramid import STAGING
from pipeline.storage.records import Segments

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("aside", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_a_worker_that_was_stopped_puts_nothing_into_a_store_that_was_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool, aside: bool
) -> None:
    """It goes on between any two steps: before it has begun a segment, or a file, and with a file written aside."""
    store = Place.of(str(tmp_path))
    first = lock.acquire(store)
    for folder in (records.FOLDER, STAGING):
        (tmp_path / folder).mkdir(parents=True)
    segment = Segments(store, "p", first.counter).begin()
    if begun:
        segment.check()
    put_aside = files.put_aside

    def stopped(*given: Any) -> str:
        """Write aside, before or after another run has begun the store anew and made its own."""
        monkeypatch.setattr(files, "put_aside", put_aside)
        before = put_aside(*given) if aside else ""
        first.release("interrupted")
        lock.acquire(store)
        target.clear(store)
        for folder in (records.FOLDER, STAGING):
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "a").write_bytes(b"another's")
        return before or put_aside(*given)

    monkeypatch.setattr(files, "put_aside", stopped)
    with pytest.raises(RunError, match="replaced by another run" if begun else "taken over by another run"):
        files.put(str(tmp_path / "a"), b"late", str(tmp_path / STAGING), segment.check)
    assert (tmp_path / "a").read_bytes() == b"another's"
    assert not list((tmp_path / STAGING).iterdir())


def test_in_a_bucket_a_worker_looks_now_and_then_for_a_later_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Place.of("memory://late/out.zarr")
    first = lock.acquire(store)
    segment = Segments(store, "p", first.counter).begin()
    segment.check()
    first.release("interrupted")
    lock.acquire(store)
    segment.check()  # it has just looked
    monkeypatch.setattr(records, "WAIT", 0.0)
    with pytest.raises(RunError, match="taken over by another run"):
        segment.check()


def test_records_of_an_image_of_which_no_run_has_noted_what_it_was_count_for_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a bucket that note waits for a while: a client that was killed before may have read another image."""
    words = yaml.safe_load(Path("config.yaml").read_text())
    words["output"]["store"] = "memory://late/noted.zarr"
    plan, store = pipeline.plan(pipeline.load(words)), Place.of("memory://late/noted.zarr")
    assert pipeline.run(plan, "serial").complete
    before = [key for key in store.list(records.FOLDER) if b"digest" in (store.read(key) or b"")]
    assert before
    for key in before:
        store.delete(key)
    array = zarr.open_array("image.zarr", mode="r+")
    array[:] = 255 - array[:]
    array.attrs["other"] = True
    job = pipeline.load(words)
    report = pipeline.run(pipeline.plan(job), "serial", resume=True)
    assert (report.complete, report.resumed) == (True, 0)
    made = zarr.open_array((store / "image/pool/0").store(), mode="r")[:]
    assert np.array_equal(made, job.stack(array[:]))


def lost(feed: Any, *_: Any) -> Iterator[Any]:
    """An executor that ends before its first task has."""
    feed.put_back(feed.take())
    yield from ()
    raise RunError("the scheduler was lost")


@pytest.mark.parametrize("place", ["memory://late/records.zarr", "late.zarr"])
def test_records_that_come_late_into_a_store_begun_anew_count_for_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    words = yaml.safe_load(Path("config.yaml").read_text())
    words["output"]["store"] = place
    job, store = pipeline.load(words), Place.of(place)
    plan = pipeline.plan(job)
    assert pipeline.run(plan, "serial").complete
    late = {key: store.read(key) or b"" for key in store.list(records.FOLDER)}
    with monkeypatch.context() as patch:
        patch.setattr(running.serial, "run", lost)
        with pytest.raises(RunError, match="the scheduler was lost"):
            pipeline.run(plan, "serial", overwrite=True)
    for key, data in late.items():
        store.write(key, data)
    assert status(place).done == 0
    report = pipeline.run(plan, "serial", resume=True)
    assert (report.complete, report.resumed) == (True, 0)
    made = zarr.open_array((store / "image/pool/0").store(), mode="r")[:]
    assert np.array_equal(made, job.stack(zarr.open_array("image.zarr", mode="r")[:]))
    assert check(store).passed


def test_what_has_been_noted_is_written_where_the_work_ends_with_an_error(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = yaml.safe_load(Path("config.yaml").read_text())
    words["output"]["store"] = "memory://late/lost.zarr"

    monkeypatch.setattr(running.serial, "run", lost)
    with pytest.raises(RunError, match="the scheduler was lost"):
        pipeline.run(pipeline.plan(pipeline.load(words)), "serial")
    assert status("memory://late/lost.zarr").images == 1


def test_a_run_that_is_refused_removes_its_store_before_it_lets_go_of_it(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes then makes one of its own."""

    @contextmanager
    def refused(*_: Any) -> Iterator[Any]:
        yield from ()
        raise ClusterError("there is no such cluster")

    release, there = lock.Lock.release, []

    def noted(held: lock.Lock, state: str) -> None:
        there.append(Path("maps.zarr").exists())
        release(held, state)
        there.append(Path("maps.zarr").exists())

    monkeypatch.setattr(running, "_executor", refused)
    monkeypatch.setattr(lock.Lock, "release", noted)
    with pytest.raises(ClusterError, match="no such cluster"):
        pipeline.run(pipeline.plan(pipeline.load("config.yaml")), "serial")
    assert there == [False, False]


def test_what_the_disk_has_lost_is_no_complete_run(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        """The system's, on a disk that fails."""

        def syncfs(self, _: int) -> int:
            ctypes.set_errno(errno.EIO)
            return -1

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda *_, **__: Library())
    with pytest.raises(RunError, match=r"maps.zarr cannot be written: Input/output error"):
        pipeline.run(pipeline.plan(pipeline.load("config.yaml")), "serial")
    assert status("maps.zarr").state == "interrupted"


def test_a_record_file_that_cannot_be_read_is_named(small: Path, haloflow: Call) -> None:
    words = ["run", "config.yaml", "--cluster", "serial"]
    assert haloflow(*words)[0] == 0
    record = next(Path("maps.zarr", records.FOLDER).iterdir())
    record.unlink()
    record.symlink_to(record.name)
    for command in ([*words, "--resume"], ["status", "maps.zarr"], ["verify", "config.yaml", "--checksums"]):
        code, _, err = haloflow(*command)
        assert (code, f"{record}: cannot be read: Too many levels of symbolic links" in err) == (2, True), (
            command,
            err,
        )
