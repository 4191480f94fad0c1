"""The promise and the drift beside it: on scores and images that come from one source, and on some that do not."""

import numpy as np
import pytest

from benchmarks.promise import drift, most_alarms
from monitoring.report import Observed
from pipelines.threshold import conformal


@pytest.mark.parametrize(("n", "good", "rate"), [(163, 271, 0.01), (8, 16, 0.1), (60, 400, 0.05)])
def test_most_alarms_is_exceeded_in_at_most_one_of_forty_draws_from_one_source(n, good, rate):
    generator, exceeded, tighter = np.random.default_rng(0), 0, 0
    for _ in range(4000):
        threshold = conformal(generator.random(n), rate)
        alarms = int((generator.random(good) > threshold.value).sum())
        exceeded += alarms > most_alarms(threshold, good)
        tighter += alarms > most_alarms(threshold, good) - 1
    assert exceeded / 4000 < 0.032
    assert tighter / 4000 > 0.018


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
