"""The terms of the loss: each is small for the desired output and grows with what it penalises."""

import numpy as np
import pytest
from keras import ops

from pipelines.tasks.anomaly.restoration.anomaly_score import pixel_error
from pipelines.tasks.anomaly.restoration.loss import (
    Errors,
    damage_loss,
    expectation_loss,
    marking_loss,
    restoration_loss,
    training_loss,
)
from tests.pipelines.tasks.anomaly.pictures_of_parts import good_parts

# All images have masks.
ALL, NONE = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)


@pytest.fixture
def image() -> np.ndarray:
    return good_parts(1, 64).astype(np.float32) / 255


def number(value) -> float:
    return float(ops.convert_to_numpy(value))


def change_of(damaged: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return the mean absolute change of each field of 2 x 2 pixels."""
    change = np.abs(damaged - clean).mean(axis=-1)
    n, height, width = change.shape
    return change.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4))[..., None]


def test_restoration_loss_when_the_restoration_gets_worse_rises(image):
    noise = np.random.default_rng(0).normal(0, 0.1, image.shape).astype(np.float32)
    losses = [number(restoration_loss(Errors.of(image, image + part * noise, 1.0))) for part in (0.0, 0.3, 1.0)]
    assert losses[0] < 1e-6
    assert losses[0] < losses[1] < losses[2]


def test_damage_loss_counts_the_damaged_pixels_alone(image):
    damaged = image.copy()
    damaged[:, 20:30, 20:30] = 0
    elsewhere = image.copy()
    elsewhere[:, 40:60, 40:60] += 0.3
    change = change_of(damaged, image)
    assert number(damage_loss(Errors.of(image, image, 1.0), change)) < 1e-6
    assert number(damage_loss(Errors.of(image, elsewhere, 1.0), change)) < 1e-6
    assert number(damage_loss(Errors.of(image, damaged, 1.0), change)) > 0.05
    assert number(damage_loss(Errors.of(image, elsewhere, 1.0), change_of(image, image))) == 0


def test_expectation_loss_is_least_where_the_expectation_holds(image):
    errors = Errors.of(image, image * 0.9, 1.0)
    error = ops.convert_to_numpy(pixel_error(image, image * 0.9))
    whole = np.zeros_like(error)
    losses = [number(expectation_loss(errors, error * factor, whole, 1.0)) for factor in (0.3, 1.0, 3.0)]
    assert losses[1] < min(losses[0], losses[2])


def test_expectation_loss_where_something_is_damaged_asks_nothing(image):
    damaged = image.copy()
    damaged[:, 20:30, 20:30] = 0
    change, errors = change_of(damaged, image), Errors.of(image, damaged, 1.0)
    expected = np.full_like(change, 0.05)
    elsewhere = expected.copy()
    elsewhere[:, 10:15, 10:15] = 0.5
    assert number(expectation_loss(errors, elsewhere, change, 1.0)) == pytest.approx(
        number(expectation_loss(errors, expected, change, 1.0))
    )
    whole = np.zeros_like(change)
    assert number(expectation_loss(errors, elsewhere, whole, 1.0)) < number(
        expectation_loss(errors, expected, whole, 1.0)
    )


def test_marking_loss_is_least_where_what_was_changed_is_marked(image):
    damaged = image.copy()
    damaged[:, 20:30, 20:30] = 0
    change = change_of(damaged, image)
    right = np.where(change > 0, 6.0, -6.0).astype(np.float32)
    anomalous = np.array([[6.0]], np.float32)
    best = number(marking_loss(change, right, anomalous, ALL))
    assert best < 0.05
    assert number(marking_loss(change, -right, anomalous, ALL)) > 1
    assert number(marking_loss(change, np.full_like(right, -6), anomalous, ALL)) > 3 * best
    assert number(marking_loss(change, right, -anomalous, ALL)) > 3 * best


def test_training_loss_when_everything_is_right_is_far_below_that_of_a_copy(image):
    damaged = image.copy()
    damaged[:, 20:30, 20:30] = 0
    marked = np.where(change_of(damaged, image) > 0, 6.0, -6.0).astype(np.float32)
    yes = np.array([[6.0]], np.float32)
    small = np.full_like(marked, 0.01)
    restored = number(training_loss(damaged, image, NONE, image, small, marked, yes))
    copied = number(training_loss(damaged, image, NONE, damaged, small, -marked, -yes))
    assert restored < copied - 1


def test_training_loss_of_an_image_anomalous_nobody_knows_where_counts_the_verdict_alone(image):
    marked = np.full((1, 32, 32, 1), 3.0, np.float32)
    unlocated, small = np.ones(1, np.float32), np.full_like(marked, 0.01)
    losses = [
        number(training_loss(image, image, unlocated, restored, small, marks, np.array([[logit]], np.float32)))
        for restored, marks, logit in ((image, marked, -4), (image, marked, 4), (image * 0, -marked, 4))
    ]
    assert losses[0] > losses[1] + 0.1
    assert losses[1] == pytest.approx(losses[2], abs=1e-6)
