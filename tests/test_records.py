"""Records where there are no files: each write is an object, and little work waits for one."""

import errno
import os
from io import BytesIO

import pytest

from pipeline.storage import records
from pipeline.storage.place import Place
from pipeline.storage.records import Segments, Units, frames_of


class Bucket:
    """A store that only takes objects."""

    is_local = False

    def __init__(self):
        self.objects = {}

    def write(self, key, data):
        assert key not in self.objects
        self.objects[key] = data


def units(number):
    return Units("image/pool/0", (0, number, 0), (1, 1, 1), (10,), (7,))


def read(bucket):
    """Return what the objects of a bucket hold besides their headers, object by object."""
    found = []
    for key in sorted(bucket.objects):
        header, *frames = frames_of(BytesIO(bucket.objects[key]), key)
        assert header["plan"] == "plan"
        found.append([[Units.unpack(packed) for packed in frame] for frame in frames])
    return found


@pytest.mark.parametrize(("wait", "objects"), [(0.0, [[0], [1], [2]]), (1e9, [[0, 1, 2]])])
def test_records_wait_for_a_flush_but_not_for_long(monkeypatch, wait, objects):
    monkeypatch.setattr(records, "WAIT", wait)
    bucket = Bucket()
    segment = Segments(bucket, "plan", 1).begin()
    for number in range(3):
        segment.append([units(number)])
    assert len(bucket.objects) == (3 if wait == 0 else 0)
    segment.flush()
    segment.flush()
    assert read(bucket) == [[[units(number)] for number in numbers] for numbers in objects]


def test_records_that_could_not_be_written_wait_still(monkeypatch):
    monkeypatch.setattr(records, "WAIT", 0.0)
    bucket = Bucket()
    segment = Segments(bucket, "plan", 1).begin()
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            segment.append([units(0)])
    segment.append([units(1)])
    assert read(bucket) == [[[units(0)], [units(1)]]]


def test_what_waits_is_written_after_a_while_without_a_further_record(monkeypatch):
    bucket = Bucket()
    segment = Segments(bucket, "plan", 1).begin()
    segment.append([units(0)])
    segment.keep_up()
    assert not bucket.objects
    monkeypatch.setattr(records, "WAIT", 0.0)
    segment.keep_up()
    assert read(bucket) == [[[units(0)]]]


def test_what_was_half_written_of_a_file_hides_nothing_that_follows(tmp_path, monkeypatch):
    (tmp_path / records.FOLDER).mkdir(parents=True)
    segment = Segments(Place.of(str(tmp_path)), "plan", 1).begin()
    segment.append([units(0)])

    def half(file, data):
        os.write(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_to", half)
        with pytest.raises(OSError, match="No space left"):
            segment.append([units(1)])
    segment.append([units(2)])
    segment.close()
    (path,) = (tmp_path / records.FOLDER).iterdir()
    _, *frames = frames_of(BytesIO(path.read_bytes()), "here")
    assert [Units.unpack(packed) for frame in frames for packed in frame] == [units(0), units(2)]
