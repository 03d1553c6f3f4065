"""The course of a run: how it ends."""

import errno
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
from pipeline.status import status
from pipeline.storage import output, target
from pipeline.storage.place import Place


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
@pytest.mark.parametrize("step", ["add", "show", "finish"])
def test_a_disk_that_is_full_for_the_run_itself_ends_it_in_words(small: Path, step: str, cluster: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "maps.zarr/image")

    plan = pipeline.plan(pipeline.load("config.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, step, full)
        with pytest.raises(
            RunError,
            match=r"^maps.zarr cannot be written: No space left on device; mend that, and run again with --resume$",
        ):
            pipeline.run(plan, cluster)
    assert status("maps.zarr").state == "interrupted"
    assert pipeline.run(plan, "serial", resume=True).complete


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
