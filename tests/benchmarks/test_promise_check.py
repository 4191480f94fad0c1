"""The drift check, on images of the same distribution and of another."""

import numpy as np

from benchmarks.promise_check import drift
from monitoring.drift.report import Observed


def observed(n: int, seed: int, score: float = 0.0, light: float = 0.0) -> Observed:
    generator = np.random.default_rng(seed)
    descriptors = generator.normal(size=(n, 4)) + [light, 0, 0, 0]
    names = ("brightness", "contrast", "sharpness", "noise")
    return Observed(generator.normal(score, 1, n), generator.normal(size=(n, 12)), descriptors, names)


def test_drift_of_images_from_one_source_is_none_and_of_others_says_what():
    reference = observed(160, 0)
    same = drift(reference, observed(200, 1))
    assert (same["drifted"], same["what"]) == (False, [])
    assert 0 < same["distance"] < same["threshold"] == 0.5
    other = drift(reference, observed(200, 1, score=1.5, light=2))
    assert (other["drifted"], other["what"]) == (True, ["anomaly score", "brightness"])
    assert other["distance"] > 1


def test_drift_of_few_images_is_not_told():
    assert drift(observed(19, 0), observed(200, 1))["drifted"] is None
    assert drift(observed(200, 0), observed(19, 1))["drifted"] is None
