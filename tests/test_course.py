"""The course of a run: how it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import RunError
from pipeline.execute import running
from pipeline.execute.feed import Feed
from pipeline.execute.task import Outcome
from pipeline.storage import target
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
