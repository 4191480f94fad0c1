"""The paired bootstrap, compared with brute force and on known differences."""

import numpy as np
import pytest

from pipelines.evaluation.paired_bootstrap import auroc_difference, draw_weights


def area(good, anomalies):
    return np.mean((anomalies[:, None] > good) + 0.5 * (anomalies[:, None] == good))


def two_models(seed, n=80, m=40, lift=1.0, noise=0.5):
    """Return scores of the same images by two models that share most of their error, the first `lift` better."""
    rng = np.random.default_rng(seed)
    good, anomalies = rng.normal(0, 1, n), rng.normal(1.5, 1, m)
    return (
        (good + rng.normal(0, noise, n), good + rng.normal(0, noise, n)),
        (anomalies + lift + rng.normal(0, noise, m), anomalies + rng.normal(0, noise, m)),
    )


def difference(good, anomalies, samples=1000, **groups):
    singles = {
        "good_groups": [f"g{number}" for number in range(len(good[0]))],
        "anomaly_groups": [f"a{number}" for number in range(len(anomalies[0]))],
    }
    return auroc_difference(good, anomalies, samples=samples, **{**singles, **groups})


def test_difference_of_two_models_equals_that_of_their_areas():
    good, anomalies = two_models(0)
    good = good[0].round(1), good[1].round(1)
    anomalies = anomalies[0].round(1), anomalies[1].round(1)
    expected = area(good[0], anomalies[0]) - area(good[1], anomalies[1])
    assert difference(good, anomalies).value == pytest.approx(expected)


def test_bounds_equal_a_bootstrap_done_image_by_image():
    good, anomalies = two_models(1)
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(1500):
        g, a = rng.integers(0, 80, 80), rng.integers(0, 40, 40)
        draws.append(area(good[0][g], anomalies[0][a]) - area(good[1][g], anomalies[1][a]))
    estimate = difference(good, anomalies, samples=3000)
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.012)


def test_bounds_for_many_anomalies_do_not_depend_on_how_the_work_is_cut(monkeypatch):
    good, anomalies = two_models(2, n=60, m=90)
    whole = difference(good, anomalies)
    monkeypatch.setattr("pipelines.evaluation.paired_bootstrap._ROWS", 7)
    monkeypatch.setattr("pipelines.evaluation.paired_bootstrap._DRAWS", 11)
    cut = difference(good, anomalies)
    assert (cut.value, cut.low, cut.high) == pytest.approx((whole.value, whole.low, whole.high), abs=1e-6)


def test_difference_of_a_model_from_itself_is_nought_without_doubt():
    good, anomalies = two_models(3)
    same = difference((good[0], good[0]), (anomalies[0], anomalies[0]))
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_difference_when_repeated_is_the_same():
    good, anomalies = two_models(4)
    assert difference(good, anomalies) == difference(good, anomalies)


def test_pairing_makes_bounds_narrower_than_drawing_apart():
    good, anomalies = two_models(5, lift=0.1, noise=0.2)
    rng = np.random.default_rng(0)
    apart = [
        area(rng.choice(good[0], 80), rng.choice(anomalies[0], 40))
        - area(rng.choice(good[1], 80), rng.choice(anomalies[1], 40))
        for _ in range(500)
    ]
    estimate = difference(good, anomalies)
    assert estimate.high - estimate.low < 0.7 * (np.quantile(apart, 0.975) - np.quantile(apart, 0.025))


def test_bounds_when_images_come_in_groups_are_wider():
    rng = np.random.default_rng(6)
    shift = np.repeat(rng.normal(0, 1.5, 12), 10)  # each group of ten is hard for the first model in its own way
    good = rng.normal(0, 1, 100), rng.normal(0, 1, 100)
    anomalies = rng.normal(1.5, 0.3, 120) + shift, rng.normal(1.5, 0.3, 120)
    groups = [f"part {number // 10}" for number in range(120)]
    single, grouped = difference(good, anomalies), difference(good, anomalies, anomaly_groups=groups)
    assert grouped.high - grouped.low > 1.5 * (single.high - single.low)
    assert grouped.value == single.value


@pytest.mark.parametrize(("groups", "together"), [(9, False), (10, True)])
def test_draw_weights_with_ten_groups_or_more_draws_them_whole(groups, together):
    names = [f"g{number % groups}" for number in range(60)]
    weights = draw_weights(np.random.default_rng(0), names, 50)
    assert (weights[:, :groups] == weights[:, groups : 2 * groups]).all() == together
    assert weights.shape == (50, 60)
    assert weights.sum(axis=1).mean() == pytest.approx(60, rel=0.05)


def test_bounds_over_many_test_sets_hold_the_truth_as_often_as_stated():
    rng = np.random.default_rng(11)
    truth = np.mean([difference(*two_models(seed), samples=2).value for seed in rng.integers(0, 1 << 30, 1500)])
    held = []
    for seed in range(200):
        estimate = difference(*two_models(seed), samples=300)
        held.append(estimate.low <= truth <= estimate.high)
    assert 0.9 <= np.mean(held) <= 0.99
