"""Certainties that mean what they say, and sets that hold the class as often as promised."""

import numpy as np
import pytest

from pipelines.tasks.classification.predict import softmax
from pipelines.tasks.classification.temperature import fit_temperature, set_threshold


def drawn(count: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [n, 5], `sharpness` times those that the labels were drawn by, and the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 5))
    # The largest of logits with Gumbel noise is distributed as their softmax.
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return (sharpness * logits).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_when_a_network_is_too_sure_then_undoes_it(sharpness: float):
    logits, labels = drawn(4000, 1, sharpness)
    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.08)


def test_temperature_when_every_image_is_right_then_stays_finite():
    logits = 5 * np.eye(4, dtype=np.float32)
    assert 0 < fit_temperature(logits, np.arange(4)) < 1


def test_set_threshold_when_calibrated_on_some_then_covers_others_as_promised():
    covered = []
    for seed in range(40):
        logits, labels = drawn(600, seed)
        threshold = set_threshold(logits[:200], labels[:200], 1.0)
        probabilities = softmax(logits[200:])
        covered.append((probabilities[np.arange(400), labels[200:]] >= threshold).mean())
    assert 0.89 < np.mean(covered) < 0.93


@pytest.mark.parametrize(("count", "every_class"), [(8, True), (9, False)])
def test_set_threshold_when_there_are_too_few_images_then_the_set_holds_every_class(count: int, every_class: bool):
    logits, labels = drawn(count, 3)
    assert (set_threshold(logits, labels, 1.0) == 0) == every_class
