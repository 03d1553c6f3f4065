"""Many images as a sequence: opened when they are asked for, several at once where they are far away."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.batch import Batch
from pipeline.errors import HaloflowError, InputError, PlaceError
from pipeline.execute import course
from pipeline.status import status
from pipeline.storage.ahead import TOGETHER
from pipeline.storage.place import Place

FAR = [Place.of(f"memory://far/{number}") for number in range(3 * TOGETHER)]
NEAR = [Place.of(f"near/{number}") for number in range(3 * TOGETHER)]


def number_of(place: Place) -> int:
    return int(str(place).rpartition("/")[2])


def test_places_far_away_are_opened_several_at_once_and_given_in_order():
    barrier = threading.Barrier(TOGETHER)  # which no fewer can pass

    def opened(place: Place) -> int:
        if number := number_of(place):
            barrier.wait(30)
        return number

    batch = Batch(FAR[: 2 * TOGETHER + 1], opened, lambda number: (number, threading.get_ident()))
    assert list(batch) == [(number, threading.get_ident()) for number in range(2 * TOGETHER + 1)]


@pytest.mark.parametrize(("places", "ahead"), [(NEAR, 1), (FAR, TOGETHER)])
def test_no_more_are_opened_than_are_worked_with_next(places, ahead):
    asked = []
    batch = Batch(places, lambda place: asked.append(number_of(place)), lambda _: None)
    assert asked == [0]
    going = batch.attempts(range(5, len(places)))
    next(going)
    deadline = time.monotonic() + 20
    while len(asked) <= ahead and time.monotonic() < deadline:
        time.sleep(0.01)
    going.close()
    assert set(asked[1:]) == set(range(5, 5 + ahead))
    del asked[:]
    assert batch.attempt(0) is None
    assert asked == []  # it is kept
    assert batch.attempt(7) is None
    assert asked == [7]


@pytest.mark.parametrize("places", [NEAR, FAR])
def test_what_cannot_be_opened_or_made_is_told_in_its_turn(places):
    def opened(place: Place) -> int:
        if number_of(place) == 4:
            raise PlaceError("cannot be reached")
        return number_of(place)

    def make(number: int) -> int:
        if number == 6:
            raise InputError("is none")
        return number

    batch = Batch(places, opened, make)
    found = [str(made) if isinstance(made, HaloflowError) else made for made in batch.attempts([2, 4, 6, 0, 9])]
    assert found == [2, "cannot be reached", "is none", 0, 9]
    assert [str(place) for place, _ in batch.bad] == [str(places[4]), str(places[6])]
    assert len(batch) == len(places) - 2
    assert batch[-1] == len(places) - 1


def test_images_far_away_are_looked_at_again_several_at_once(tmp_path, monkeypatch):
    """Whether one has changed is asked at its end, and the others go on meanwhile."""
    monkeypatch.chdir(tmp_path)
    images = [f"memory://{tmp_path.name}/{number}.zarr" for number in range(2 * TOGETHER)]
    for image in images:
        zarr.create_array(Place.of(image).store(), data=np.ones((8, 8), np.uint8), chunks=(8, 8))
    barrier, digest_of = threading.Barrier(TOGETHER), course.digest_of

    def look(place: Place, array: Place) -> str:
        barrier.wait(30)
        return "another" if number_of(Place.of(str(place).removesuffix(".zarr"))) == 3 else digest_of(place, array)

    monkeypatch.setattr(course, "digest_of", look)
    config = {"input": {"images": images}, "layers": [{"type": "relu"}], "output": {"store": "o.zarr"}}
    report = pipeline.run(pipeline.plan(pipeline.load(config)), "serial")
    assert report.failed == [f"failed: {images[3]}: changed while the run read it"]
    assert report.done == len(images)
    again = pipeline.plan(pipeline.load(config))
    monkeypatch.setattr(course, "digest_of", digest_of)
    assert pipeline.run(again, "serial", resume=True).complete


def test_ctrl_c_while_images_are_looked_at_again_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = f"memory://{tmp_path.name}/i.zarr"
    zarr.create_array(Place.of(image).store(), data=np.ones((8, 8), np.uint8), chunks=(8, 8))
    digest_of = course.digest_of

    def interrupted(place: Place, array: Place) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        return digest_of(place, array)

    monkeypatch.setattr(course, "digest_of", interrupted)
    config = {"input": {"images": image}, "layers": [{"type": "relu"}], "output": {"store": "o.zarr"}}
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(pipeline.plan(pipeline.load(config)), "serial")
    assert status("o.zarr").state == "interrupted"
