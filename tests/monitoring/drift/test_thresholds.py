"""Thresholds that sampling noise does not exceed, and columns that cannot be compared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from monitoring.drift import thresholds

SIZES = [(20, 50), (60, 50), (200, 100), (200, 2000)]


def distance(reference: np.ndarray, current: np.ndarray) -> float:
    """Return Evidently's normalized Wasserstein distance of the standardised columns."""
    scaled = thresholds.scale(reference, current)
    assert isinstance(scaled, thresholds.Scaled)
    return wasserstein_distance(scaled.reference, scaled.current) / max(np.std(scaled.reference), 0.001)


@pytest.mark.parametrize(("reference_n", "current_n"), SIZES)
@pytest.mark.parametrize("shape", ["normal", "gamma", "lognormal"])
def test_threshold_when_nothing_changed_then_passed_once_in_some_hundred_columns_at_most(
    reference_n: int, current_n: int, shape: str
):
    generator = np.random.default_rng(1)
    draw = {
        "normal": lambda n: generator.normal(0.4, 0.02, n),
        "gamma": lambda n: generator.gamma(2, 0.0005, n),  # like an anomaly score: small, skewed
        "lognormal": lambda n: np.exp(generator.normal(0, 0.5, n)),
    }[shape]
    threshold = thresholds.distance_threshold(reference_n, current_n)
    alarms = sum(distance(draw(reference_n), draw(current_n)) >= threshold for _ in range(400))
    assert alarms / 400 <= 0.01


@pytest.mark.parametrize(("reference_n", "current_n"), SIZES)
def test_threshold_when_a_column_moved_by_one_and_a_half_deviations_then_passed(reference_n: int, current_n: int):
    generator = np.random.default_rng(2)
    threshold = thresholds.distance_threshold(reference_n, current_n)
    alarms = sum(
        distance(generator.normal(0, 1e-4, reference_n), generator.normal(1.5e-4, 1e-4, current_n)) >= threshold
        for _ in range(100)
    )
    assert alarms >= 97


def test_distance_when_two_of_a_hundred_parts_are_defects_then_far_from_drift():
    generator = np.random.default_rng(3)
    reference = generator.gamma(2, 0.0005, 200)
    current = generator.gamma(2, 0.0005, 500)
    current[:10] = 0.5  # a thousand times the usual score
    assert distance(reference, current) < 0.5 * thresholds.distance_threshold(200, 500)


@given(
    st.floats(1e-6, 1e6),
    st.floats(-1e3, 1e3),
    st.integers(0, 2**32 - 1),
)
def test_scale_when_the_unit_changes_then_the_distance_does_not(unit: float, origin: float, seed: int):
    generator = np.random.default_rng(seed)
    reference, current = generator.normal(0, 1, 60), generator.normal(0.4, 1.2, 80)
    there = distance(reference * unit + origin * unit, current * unit + origin * unit)
    assert there == pytest.approx(distance(reference, current), rel=1e-6)


def test_scale_when_constant_on_both_sides_then_not_compared():
    scaled = thresholds.scale(np.full(30, 640.0), np.full(50, 640.0))
    assert scaled == thresholds.Unusable("always 640")


def test_scale_when_constant_only_in_the_reference_then_same_or_other():
    scaled = thresholds.scale(np.full(30, 640.0), np.array([640.0] * 40 + [1280.0] * 10))
    assert isinstance(scaled, thresholds.Scaled)
    assert scaled.spread == 0
    assert scaled.current.sum() == 10


def test_scale_when_almost_constant_then_one_odd_image_is_no_drift():
    reference = np.array([640.0] * 199 + [641.0])
    current = np.array([640.0] * 99 + [1280.0])
    assert distance(reference, current) < thresholds.distance_threshold(200, 100)


@pytest.mark.parametrize("side", ["reference", "current"])
def test_scale_when_most_values_are_missing_then_not_compared_and_why(side: str):
    whole, holes = np.arange(40.0), np.array([1.0, 2.0, 3.0] + [np.nan] * 37)
    scaled = thresholds.scale(holes, whole) if side == "reference" else thresholds.scale(whole, holes)
    assert scaled == thresholds.Unusable(f"only 3 of 40 {side} images have a value")


def test_scale_when_some_values_are_missing_then_the_others_count():
    current = np.append(np.arange(60.0), [np.nan, np.inf])
    scaled = thresholds.scale(np.arange(40.0), current)
    assert isinstance(scaled, thresholds.Scaled)
    assert len(scaled.current) == 60


def test_scale_embedding_when_a_component_never_fires_then_left_out():
    generator = np.random.default_rng(4)
    reference, current = generator.normal(size=(30, 8)), generator.normal(size=(50, 8))
    reference[:, 3] = 0
    scaled_reference, scaled_current = thresholds.scale_embedding(
        reference.astype(np.float32), current.astype(np.float32)
    )
    assert scaled_reference.shape == (30, 7)
    assert scaled_current.shape == (50, 7)


def test_stated_when_read_then_names_methods_and_thresholds():
    words = " ".join(thresholds.describe_method(40, 50, 7))
    assert "Wasserstein" in words
    assert "Hellinger" in words
    assert f"{thresholds.distance_threshold(40, 50):.2f}" in words
    assert "20%" in words
    assert "99.9% point, 7." in words
    assert "alarms" not in " ".join(thresholds.describe_method(40, 50, None))


@pytest.mark.parametrize(("n", "m", "classes"), [(60, 60, 3), (60, 200, 10), (120, 2000, 10), (40, 50, 40)])
def test_class_threshold_when_nothing_changed_then_noise_stays_below(n: int, m: int, classes: int):
    generator = np.random.default_rng(11)
    shares = generator.dirichlet(np.full(classes, 3.0))
    above = 0
    for _ in range(100):
        before, after = generator.multinomial(n, shares), generator.multinomial(m, shares)
        distance = np.abs(before / n - after / m).sum() / 2
        above += distance >= thresholds.class_threshold(before, after)
    assert above <= 2


def test_class_threshold_when_samples_are_large_then_a_fifth_of_the_images():
    assert thresholds.class_threshold(np.full(10, 500), np.full(10, 500)) == thresholds.CLASS_DISTANCE


def test_unsure_threshold_when_nothing_changed_then_noise_stays_below():
    generator = np.random.default_rng(12)
    before, after = generator.binomial(60, 0.3, 4000) / 60, generator.binomial(80, 0.3, 4000) / 80
    above = sum(
        now - then >= thresholds.unsure_threshold(then, 60, now, 80) for then, now in zip(before, after, strict=True)
    )
    assert above <= 12
    assert thresholds.unsure_threshold(0.0, 1000, 0.0, 1000) == thresholds.UNSURE_INCREASE


def test_stated_when_a_classifier_then_names_classes_and_unsure_predictions():
    words = " ".join(thresholds.describe_method(40, 50, None, 0.27, 0.12))
    assert "drifted from 0.27" in words
    assert "grows by 12%" in words
    assert "the predicted classes, the share of unsure predictions, the embedding" in words
