"""What verify finds in the table of decisions: its rows, their classes, and the scores of planes made again."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.errors import OutputError
from pipeline.execute import task
from tests.test_decisions import config, store

Rows = list[dict[str, str]]


def made(folder: Path, op: str = "max", **output: Any) -> pipeline.Job:
    """Run the config of the tests of decisions over an image a, 40 × 30, and b of three planes."""
    draw = np.random.default_rng(7)
    store(folder, "a", draw.integers(0, 256, (40, 30)).astype("u1"), (16, 16))
    planes = draw.normal(size=(3, 20, 30)).astype("f4")
    planes[1, 4, 5] = np.nan
    store(folder, "b", planes, (1, 8, 8), dimension_names=("z", "y", "x"))
    job = pipeline.load(config(folder, op, **output))
    assert pipeline.run(pipeline.plan(job), "serial").complete
    return job


def table(folder: Path) -> Path:
    return folder / "out/_haloflow/tables/decisions.csv"


def changed(path: Path, change: Callable[[Rows], Rows]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    heads = list(rows[0])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, heads)
        writer.writeheader()
        writer.writerows(change(rows))


def put(row: int, **values: str) -> Callable[[Rows], Rows]:
    return lambda rows: [{**r, **(values if n == row else {})} for n, r in enumerate(rows)]


CHANGES: list[tuple[Callable[[Rows], Rows], str]] = [
    (put(2, **{"class": "X"}), "decisions.csv: row 2, column class: expected none, got X"),
    (put(1, **{"class": "Y"}), "decisions.csv: row 1, column class: expected "),
    (put(0, score_X="0.25", score_O="0.75", **{"class": "O"}), "decisions.csv: row 0, column score_X: expected 0."),
    (put(2, score_O="0.5"), "decisions.csv: row 2, column score_O: expected nan, got 0.5"),
    (put(3, path="elsewhere.zarr"), "decisions.csv: row 3, column path: expected "),
    (put(3, z="1"), "decisions.csv: row 3, column z: expected 2, got 1"),
    (lambda rows: rows[:-1], "decisions.csv: b has 2 rows of decisions, and 3 planes"),
    (lambda _: [], "decisions.csv: a has 0 rows of decisions, and 1 plane"),
    (lambda rows: [rows[0], *rows], "decisions.csv: a has 2 rows of decisions, and 1 plane"),
    (lambda rows: [rows[0], rows[2], rows[1], rows[3]], "decisions.csv: row 1, column z: expected 0, got 1"),
    (lambda rows: [*rows[1:], rows[0]], "decisions.csv: row 3, column image: a stands after b; expected before it"),
    (put(0, image="c"), "decisions.csv: row 0, column image: c is no image of the run"),
    (put(0, image="c"), "decisions.csv: a has 0 rows of decisions, and 1 plane"),
]


@pytest.mark.parametrize("op", ["max", "mean"])
def test_what_is_wrong_with_decisions_is_named(tmp_path: Path, op: str) -> None:
    job, path = made(tmp_path, op), table(tmp_path)
    found = pipeline.verify(job)
    assert found.passed, str(found)
    assert found.checked == ("decisions.csv: 4 rows; the scores of 4 planes made again",)
    assert not found.unchecked
    before = path.read_bytes()
    for change, words in CHANGES:
        changed(path, change)
        found = pipeline.verify(job)
        assert not found.passed, words
        assert any(one.startswith(words) for one in found.tables), (words, found.tables)
        path.write_bytes(before)
    path.unlink()
    with pytest.raises(OutputError, match=r"decisions\.csv: there is no such table; 'haloflow run --resume' makes it"):
        pipeline.verify(job)


def test_of_equal_scores_the_first_class_is_right(tmp_path: Path) -> None:
    told = config(tmp_path)
    told["layers"][3] = {"type": "vote", "weights": {"X": [0, 0], "O": [0, 0]}}
    store(tmp_path, "a", np.zeros((9, 9), "u1"), (9, 9))
    job = pipeline.load(told)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    assert pipeline.verify(job).passed
    changed(table(tmp_path), put(0, **{"class": "O"}))
    assert pipeline.verify(job).tables == ("decisions.csv: row 0, column class: expected X, got O",)


def test_what_is_not_made_again_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = made(tmp_path)
    found = pipeline.verify(job, windows=1)
    assert found.checked == ("decisions.csv: 4 rows; the scores of 2 planes made again",)
    assert found.unchecked == ("the scores of 2 of the 3 planes of b; more --windows look at more",)
    monkeypatch.setattr("pipeline.verifying.again.WHOLE", 600)
    found = pipeline.verify(job)
    assert found.passed
    assert found.checked == ("decisions.csv: 4 rows; the scores of 3 planes made again",)
    (left,) = found.unchecked
    assert left.startswith("the scores of a, where maps of 40 × 28 are joined: ")
    assert f"not checked: {left}" in str(found)
    changed(table(tmp_path), put(0, **{"class": "Y"}))
    assert not pipeline.verify(job).passed


def test_matches_of_pooled_maps_are_right_within_the_rounding_of_these(tmp_path: Path) -> None:
    """As `configs/x_or_o.yaml` has it: how alike are the sums of some maps to what they are in a class?"""
    told = config(tmp_path, "mean")
    told["features"]["like"] = {"rows": [[[1]], [[-1]]]}
    told["layers"][3:] = [
        {"type": "convolution", "name": "like", "features": ["like"], "match": "ncc"},
        {"type": "vote", "weights": {"X": [1], "O": [-1]}},
    ]
    for name, level in (("faint", 20_000), ("plain", 0)):
        image = level + np.random.default_rng(3).normal(0, 0.5, (30, 30))
        store(tmp_path, name, image.astype("f4"), (16, 16))
    job = pipeline.load(told)
    assert pipeline.run(pipeline.plan(job), "serial").complete
    assert pipeline.verify(job).passed


def test_an_image_that_failed_needs_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        store(tmp_path, name, np.random.default_rng(ord(name)).integers(0, 256, (20, 20)).astype("u1"), (9, 9))
    job, compute = pipeline.load(config(tmp_path)), task.compute

    def failing(of: Any, *words: Any) -> Any:
        if of.source.name == "b":
            raise OSError("gone")
        return compute(of, *words)

    monkeypatch.setattr(task, "compute", failing)
    assert not pipeline.run(pipeline.plan(job), "serial").complete
    found = pipeline.verify(job)
    assert found.passed
    assert found.unchecked == ("tables have no rows of b, of which the run failed",)
    monkeypatch.undo()
    assert pipeline.run(pipeline.plan(job), "serial", resume=True).complete
    assert not pipeline.verify(job).unchecked
