"""The Python interface, taken in the wrong order."""

import pytest

import pipeline


@pytest.mark.parametrize(
    ("call", "given", "words"),
    [
        (pipeline.plan, "config.yaml", r"expected a job, as pipeline.load\(config\) gives it, not str"),
        (pipeline.verify, {}, r"expected a job, as pipeline.load\(config\) gives it, not dict"),
        (pipeline.run, "config.yaml", r"expected a plan, as pipeline.plan\(job\) gives it, not str"),
    ],
)
def test_what_is_given_in_place_of_a_job_or_a_plan_is_named(call, given, words):
    with pytest.raises(TypeError, match=words):
        call(given)
