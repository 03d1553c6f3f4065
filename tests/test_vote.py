"""Votes: a linear classifier over maps, its classes by name, and everything that may be wrong with one."""

import re

import numpy as np
import pytest
import yaml

import pipeline
from pipeline.errors import ConfigError, StackError
from pipeline.kernels import BACKENDS

BOOK = {"weights": {"X": {"edge": 2.0, "dot": -1.0}, "O": {"dot": 0.5, "edge": -3.0}}, "bias": {"X": 0.25, "O": -0.5}}


def job(**vote):
    return pipeline.load(
        {
            "input": {"images": "a.zarr"},
            "features": {"edge": {"rows": [[-1, 1]]}, "dot": {"rows": [[0.5, 0.25]]}},
            "layers": [
                {"type": "convolution", "features": ["edge", "dot"], "match": "sum"},
                {"type": "vote", **vote},
            ],
            "output": {"store": "out.zarr"},
        }
    )


@pytest.mark.parametrize("kernel", [*BACKENDS, None])
def test_scores_are_a_matrix_product_in_float64(kernel):
    image = np.random.default_rng(5).normal(size=(13, 17)).astype("f4")
    scores = job(**BOOK).stack(image, kernel=kernel)
    left, right = image[:, :-1].astype(float), image[:, 1:].astype(float)
    edge, dot = right - left, 0.5 * left + 0.25 * right
    expected = np.stack([2 * edge - dot + 0.25, 0.5 * dot - 3 * edge - 0.5])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_weights_in_the_maps_order_are_those_by_name():
    image = np.random.default_rng(6).normal(size=(9, 9)).astype("f4")
    ordered = {"weights": {"X": [2.0, -1.0], "O": [-3.0, 0.5]}, "bias": BOOK["bias"]}
    np.testing.assert_array_equal(job(**ordered).stack(image), job(**BOOK).stack(image))


def test_the_classes_are_the_names_of_the_maps():
    assert job(**BOOK).stack.layers.bind(("0",)).operations[-1].maps == ("X", "O")


def test_votes_may_stand_in_a_file_of_their_own(tmp_path):
    path = tmp_path / "votes.yaml"
    path.write_text(yaml.safe_dump(BOOK, sort_keys=False))
    image = np.random.default_rng(7).normal(size=(9, 9)).astype("f4")
    filed = job(file=str(path))
    np.testing.assert_array_equal(filed.stack(image), job(**BOOK).stack(image))
    # What the file said is the job's: a run goes on with a store only where it says the same.
    assert filed.config.model_dump() == job(**BOOK).config.model_dump()


@pytest.mark.parametrize(
    ("vote", "words"),
    [
        ({}, "layers[1]: vote needs weights, or a file of them as 'haloflow fit' writes it"),
        ({"weights": {"X": [1, 2]}}, "layers[1]: vote has the classes X; it decides between two or more"),
        (
            {**BOOK, "bias": {"X": 1.0}},
            "layers[1]: bias has numbers for X, and weights for X, O; give both for the same classes",
        ),
        ({"weights": {"X": [1, 2], "O": [1, "a"]}}, "layers[1].weights.O[1]: should be a number"),
        ({"weights": {"X": 3, "O": [1, 2]}}, "layers[1].weights.X: should be a list; found 3"),
        (
            {"weights": {"X": {"edge": 1, "dot": np.nan}, "O": [1, 2]}},
            "layers[1].weights.X.dot: should be a finite number",
        ),
        (
            {"weights": {"X": {"edge": 1, "dot": "a"}, "O": [1, 2]}},
            "layers[1].weights.X.dot: should be a number; found 'a'",
        ),
        (
            {"weights": {"a,b": [1, 2], "O": [1, 2]}},
            "layers[1].weights.a,b: 'a,b' cannot be the name of a class: it has no comma, slash or line break",
        ),
        ({"file": "no_such.yaml"}, "layers[1].file: no_such.yaml: there is no such file"),
        ({"file": ""}, "layers[1].file: is empty; name the YAML file of the votes"),
        ({"file": "."}, "layers[1].file: .: is a folder; name the YAML file of the votes"),
        ({"file": "no_such.yaml", "bias": {}}, "the file holds weights and bias; leave out bias, or the file"),
    ],
)
def test_what_is_no_vote_is_refused(vote, words, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(words)):
        job(**vote)
    if "weights" in vote:
        path = tmp_path / "votes.yaml"
        path.write_text(yaml.safe_dump(vote, sort_keys=False))
        with pytest.raises(ConfigError, match=re.escape(words)):
            job(file=str(path))


def test_a_file_that_holds_no_votes_is_refused(tmp_path):
    path = tmp_path / "votes.yaml"
    path.write_text("weight: {X: [1, 2]}\n")
    with pytest.raises(ConfigError, match=r"votes\.yaml: expected the keys weights and bias"):
        job(file=str(path))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1.0], "layer 'vote': class 'X' has 1 weights and the layer takes 2 maps: edge, dot"),
        ({"edge": 1.0}, "layer 'vote': class 'X' has no weight for the maps dot; the layer takes edge, dot"),
        ({"edge": 1.0, "dit": 1.0}, "has no weight for the maps dot and weights for dit; the layer takes edge, dot"),
        (
            {"edge": 1.0, "dot": 1.0, "spot": 2.0},
            "layer 'vote': class 'X' has weights for spot; the layer takes edge, dot",
        ),
    ],
)
def test_weights_that_do_not_fit_the_maps_are_refused(row, words):
    with pytest.raises(StackError, match=re.escape(words)):
        job(weights={"X": row, "O": [1.0, 1.0]}).stack(np.zeros((5, 5), "u1"))
