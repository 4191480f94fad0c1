"""Error map and score: nothing where the image is restored as it is, most where it differs, anywhere alike."""

import numpy as np
import pytest
from keras import ops

from pipelines.models.loss import damage_loss, expectation_loss, restoration_loss
from pipelines.models.scoring import anomaly_score, embedding, error_map, gradient_magnitude, pixel_error
from tests.pipelines.models.pictures_of_parts import good_parts


@pytest.fixture
def image() -> np.ndarray:
    return good_parts(1, 64).astype(np.float32) / 255


def map_of(image: np.ndarray, restored: np.ndarray, expected: float | np.ndarray = 0.0) -> np.ndarray:
    expected = np.broadcast_to(np.asarray(expected, np.float32), (*image.shape[:3], 1))
    return ops.convert_to_numpy(error_map(*(ops.convert_to_tensor(part) for part in (image, restored, expected))))


def test_error_map_when_restored_exactly_is_zero(image):
    assert np.abs(map_of(image, image)).max() < 1e-6


def test_error_map_when_a_spot_is_not_restored_is_largest_there(image):
    damaged = image.copy()
    damaged[:, 20:26, 40:46] = 0
    errors = map_of(damaged, image)
    assert errors.shape == (1, 64, 64)
    row, column = np.unravel_index(np.argmax(errors[0]), (64, 64))
    assert 17 <= row <= 28
    assert 37 <= column <= 48
    assert errors[0, 50:, :20].max() < 0.1 * errors.max()


def test_error_map_when_only_the_outermost_pixels_are_not_restored_stays_zero(image):
    restored = image.copy()
    restored[:, :2], restored[:, -2:], restored[:, :, :2], restored[:, :, -2:] = 1, 0, 1, 0
    assert np.abs(map_of(image, restored)).max() < 1e-6


def test_error_map_when_a_spot_reaches_the_edge_is_largest_there(image):
    damaged = image.copy()
    damaged[:, :8, 30:38] = 1 - damaged[:, :8, 30:38].round()
    row, column = np.unravel_index(np.argmax(map_of(damaged, image)[0]), (64, 64))
    assert row <= 10
    assert 28 <= column <= 40


def test_anomaly_score_when_a_spot_grows_or_darkens_rises(image):
    def of(side: int, depth: float) -> float:
        damaged = image.copy()
        damaged[:, 20 : 20 + side, 30 : 30 + side] *= 1 - depth
        return float(ops.convert_to_numpy(anomaly_score(map_of(damaged, image)))[0])

    assert of(2, 0.5) < of(4, 0.5) < of(8, 0.5)
    assert of(4, 0.2) < of(4, 0.5) < of(4, 0.9)


def test_anomaly_score_when_only_the_colour_is_wrong_rises_too(image):
    tinted = image.copy()
    # The same grey, another colour.
    tinted[:, 20:30, 30:40] += np.array([0.1, -0.1, 0.0], np.float32)
    assert map_of(tinted, image).max() > 10 * map_of(image + 0.001, image).max()


def test_gradient_magnitude_of_a_ramp_is_its_slope():
    ramp = np.broadcast_to(np.linspace(0, 1, 33, dtype=np.float32)[None, None, :, None], (1, 16, 33, 1))
    magnitude = ops.convert_to_numpy(gradient_magnitude(ops.convert_to_tensor(ramp)))
    assert magnitude.shape == (1, 16, 33, 1)
    np.testing.assert_allclose(magnitude[0, :, 1:-1, 0], 2 / 32, rtol=1e-2)


def test_embedding_is_the_mean_over_the_image():
    features = np.random.default_rng(0).normal(size=(2, 4, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(ops.convert_to_numpy(embedding(features)), features.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_error_map_where_more_error_was_expected_is_lower(image):
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 0.1, image.shape), 0, 1).astype(np.float32)
    expected = np.zeros((1, 64, 64, 1), np.float32)
    expected[:, :, 32:] = 0.5
    errors = map_of(image, noisy, expected)
    assert errors[0, :, 40:].mean() < 0.3 * errors[0, :, :24].mean()


def losses(function, *parts: np.ndarray) -> float:
    return float(ops.convert_to_numpy(function(*(ops.convert_to_tensor(part) for part in parts))))


def test_restoration_loss_when_the_restoration_gets_worse_rises(image):
    noise = np.random.default_rng(0).normal(0, 0.1, image.shape).astype(np.float32)
    found = [losses(restoration_loss, image, image + part * noise) for part in (0.0, 0.3, 1.0)]
    assert found[0] < 1e-6
    assert found[0] < found[1] < found[2]


def test_damage_loss_counts_the_damaged_pixels_alone(image):
    damaged = image.copy()
    damaged[:, 20:30, 20:30] = 0
    elsewhere = image.copy()
    elsewhere[:, 40:60, 40:60] += 0.3
    assert losses(damage_loss, damaged, image, image) < 1e-6
    assert losses(damage_loss, damaged, image, elsewhere) < 1e-6
    assert losses(damage_loss, damaged, image, damaged) > 0.05
    assert losses(damage_loss, image, image, elsewhere) == 0


def test_expectation_loss_is_least_where_the_expectation_holds(image):
    worse = image * 0.9
    error = ops.convert_to_numpy(pixel_error(ops.convert_to_tensor(image), ops.convert_to_tensor(worse)))
    found = [losses(expectation_loss, image, worse, error * factor) for factor in (0.3, 1.0, 3.0)]
    assert found[1] < min(found[0], found[2])
