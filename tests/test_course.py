"""The course of a run: how it ends."""

import errno
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.errors import RunError
from pipeline.execute import running
from pipeline.execute.feed import Feed
from pipeline.execute.task import Outcome
from pipeline.execute.watching import Event, ImageDone, Progress, Started
from pipeline.status import status
from pipeline.storage import place, target
from pipeline.storage.place import Place
from pipeline.storage.records import Segment


def test_a_store_is_not_complete_where_an_image_was_begun_and_has_not_ended(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(feed: Feed, *_: object) -> Iterator[Outcome]:
        assert feed.take()
        yield from ()

    plan = pipeline.plan(pipeline.load("config.yaml"))
    with monkeypatch.context() as patch:
        patch.setattr(running.serial, "run", lose)
        with pytest.raises(RunError, match=r"image.zarr: was begun and has not ended, one of 1; .* --resume"):
            pipeline.run(plan, "serial")
    assert not target.recorded(Place.of("maps.zarr"))["complete"]
    assert pipeline.run(plan, "serial", resume=True).complete


@pytest.mark.parametrize("cluster", ["serial", "threads"])
@pytest.mark.parametrize(
    ("file", "times"),
    [("image/pool/0/zarr.json", 0), ("image/pool/zarr.json", 1), ("maps.zarr/zarr.json", 1), ("run.json", 1)],
)
def test_a_disk_that_is_full_for_the_run_itself_ends_it_in_words(
    small: Path, file: str, times: int, cluster: str
) -> None:
    put, seen = place.put, Counter[str]()

    def full(target: str, *words: Any) -> None:
        seen[target] += target.endswith(file)
        if seen[target] > times:
            raise OSError(errno.ENOSPC, "No space left on device", target)
        put(target, *words)

    plan = pipeline.plan(pipeline.load("config.yaml"))
    words = "maps.zarr cannot be written: No space left on device; mend that, and run again with --resume"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "put", full)
        with pytest.raises(RunError, match=f"^{words}$"):
            pipeline.run(plan, cluster)
    assert status("maps.zarr").state == "interrupted"
    assert pipeline.run(plan, "serial", resume=True).complete


def test_what_a_listener_raises_is_not_the_stores(small: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, ImageDone):
            raise OSError(errno.EPIPE, "Broken pipe")

    plan = pipeline.plan(pipeline.load("config.yaml"))
    with pytest.raises(OSError, match="Broken pipe"):
        pipeline.run(plan, "serial", progress=listen)
    assert pipeline.run(plan, "serial", resume=True).complete


@pytest.mark.parametrize("cluster", ["serial", "threads"])
def test_an_input_that_is_away_for_a_while_is_not_taken_for_fill_value(
    small: Path, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    monkeypatch.setattr("pipeline.planner.TASK_PIXELS", 0)
    plan = pipeline.plan(pipeline.load("config.yaml"))
    assert pipeline.run(plan, "serial").complete
    whole = contents("maps.zarr")

    def remove(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 3 and Path("image.zarr").exists():
            Path("image.zarr").rename("away.zarr")

    report = pipeline.run(plan, cluster, overwrite=True, progress=remove)
    assert not report.complete
    assert "image.zarr is gone" in report.failures[0]["reason"]
    Path("away.zarr").rename("image.zarr")
    again = pipeline.run(plan, "serial", resume=True)
    assert again.complete
    assert 0 < again.resumed < again.tasks
    assert contents("maps.zarr") == whole


def contents(store: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(store, "image").rglob("*") if path.is_file()}


@pytest.mark.parametrize("moment", [Started, Progress])
def test_a_store_that_is_removed_during_a_run_is_not_begun_again(small: Path, moment: type[Event]) -> None:
    def remove(event: Event) -> None:
        if isinstance(event, moment):
            shutil.rmtree("maps.zarr")

    plan = pipeline.plan(pipeline.load("config.yaml"))
    with pytest.raises(RunError, match=r"^maps.zarr has been replaced by another run"):
        pipeline.run(plan, "serial", progress=remove)
    assert not target.exists(Place.of("maps.zarr"))
    assert pipeline.run(plan, "serial").complete


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"progress": 3}, "progress: expected a function of an event, not 3"),
        ({"workers": 1.5}, "workers: expected a whole number, not 1.5"),
        ({"workers": "2"}, "workers: expected a whole number, not '2'"),
    ],
)
def test_arguments_of_another_type_are_refused_before_a_store_is_replaced(
    small: Path, words: dict[str, Any], message: str
) -> None:
    plan = pipeline.plan(pipeline.load("config.yaml"))
    assert pipeline.run(plan, "threads", np.int64(1)).complete
    with pytest.raises(TypeError, match=message):
        pipeline.run(plan, "threads", overwrite=True, **words)
    assert status("maps.zarr").state == "complete"
    assert pipeline.run(plan, "serial", resume=True).complete


def test_where_no_record_can_be_written_the_store_is_named_and_no_pixel_counts(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Segment.append

    def full(segment: Segment, frame: Any) -> None:
        if isinstance(frame, list):  # of a task
            raise OSError(errno.ENOSPC, "No space left on device")
        append(segment, frame)

    monkeypatch.setattr(Segment, "append", full)
    report = pipeline.run(pipeline.plan(pipeline.load("config.yaml")), "serial")
    (failed,) = report.failed
    assert failed == (
        "failed: image.zarr, task 0 at input pixel (0, 0): maps.zarr cannot be written: No space left on device; mend "
        "that, and run again with --resume"
    )
    assert "0 of 1 task done" in str(report)
    assert ", 0.0 a second;" in str(report)
