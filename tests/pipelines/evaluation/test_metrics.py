"""Image-level metrics, compared with scikit-learn and brute force, and their intervals by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from pipelines.evaluation import metrics
from pipelines.evaluation.metrics import Confusion

scores = st.lists(st.integers(0, 12).map(float), min_size=1, max_size=40)


def labels(good, anomalies):
    return np.r_[np.zeros(len(good)), np.ones(len(anomalies))], np.r_[good, anomalies]


def covers(figure, truth, draw, runs):
    """Return the coverage of the metric's interval."""
    estimates = [figure(*draw()) for _ in range(runs)]
    return np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])


@given(scores, scores)
def test_auroc_with_ties_equals_scikit_learns(good, anomalies):
    estimate = metrics.auroc(good, anomalies)
    assert estimate.value == pytest.approx(roc_auc_score(*labels(good, anomalies)))
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


@given(scores, scores)
def test_average_precision_with_ties_equals_scikit_learns(good, anomalies):
    estimate = metrics.average_precision(good, anomalies)
    assert estimate.value == pytest.approx(average_precision_score(*labels(good, anomalies)))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_delong_variance_equals_its_definition_pair_by_pair():
    rng = np.random.default_rng(0)
    good, anomalies = rng.normal(0, 1, 30).round(1), rng.normal(1, 1, 20).round(1)
    kernel = (anomalies[:, None] > good) + 0.5 * (anomalies[:, None] == good)
    expected = kernel.mean(1).var(ddof=1) / 20 + kernel.mean(0).var(ddof=1) / 30
    assert metrics.delong(good, anomalies) == (pytest.approx(kernel.mean()), pytest.approx(expected))


@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize(("shift", "n", "m"), [(1.0, 60, 20), (2.5, 100, 25), (3.0, 500, 12)])
def test_auroc_interval_over_many_test_sets_covers_the_truth(shift, n, m, spread):
    from scipy.stats import norm

    rng = np.random.default_rng(7)
    truth = norm.cdf(shift / np.hypot(1, spread))
    covered = covers(metrics.auroc, truth, lambda: (rng.normal(0, 1, n), rng.normal(shift, spread, m)), 1000)
    assert 0.93 <= covered <= 1


def test_average_precision_interval_over_many_test_sets_covers_the_truth():
    rng = np.random.default_rng(8)
    truth = metrics.average_precision(rng.normal(0, 1, 400_000), rng.normal(2, 1, 100_000)).value
    covered = covers(metrics.average_precision, truth, lambda: (rng.normal(0, 1, 120), rng.normal(2, 1, 30)), 1500)
    assert 0.925 <= covered <= 1


@pytest.mark.parametrize("sides", [([1.0, 2.0], [3.0, 4.0]), ([3.0, 4.0], [1.0, 2.0])])
def test_auroc_when_the_sides_are_apart_has_an_interval_of_some_width(sides):
    estimate = metrics.auroc(*sides)
    assert estimate.value in (0.0, 1.0)
    assert 0.3 < estimate.high - estimate.low < 1
    many = metrics.auroc([0.0] * 500, [1.0] * 100)
    assert many.value == many.high == 1
    assert 0.95 < many.low < 1


def test_average_precision_when_perfect_has_an_interval_of_some_width():
    estimate = metrics.average_precision([0.0] * 50, [1.0] * 20)
    assert (estimate.value, estimate.high) == (1, 1)
    assert 0.7 < estimate.low < 0.95


def test_average_precision_when_nearly_perfect_has_no_absurd_interval():
    good, anomalies = [0.0] * 15 + [1.5], [1.0] + [2.0] * 47
    estimate = metrics.average_precision(good, anomalies)
    assert 0.999 < estimate.value < 1
    assert 0.9 < estimate.low < estimate.value <= estimate.high


@pytest.mark.parametrize("figure", [metrics.auroc, metrics.average_precision])
@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], [])])
def test_curves_without_one_side_refuse(figure, sides):
    with pytest.raises(ValueError, match="both good images and anomalies"):
        figure(*sides)


def test_confusion_at_a_threshold_counts_only_scores_above_it():
    assert Confusion.at(2.0, good=[1, 2, 3], anomalies=[2, 2.5, 9, 9]) == Confusion(3, 1, 1, 2)


@given(scores, scores, st.integers(-1, 13))
def test_rates_at_any_threshold_lie_within_their_intervals_and_f1_equals_scikit_learns(good, anomalies, threshold):
    verdicts = Confusion.at(threshold, good, anomalies)
    truth, values = labels(good, anomalies)
    figures = [metrics.recall(verdicts), metrics.false_positive_rate(verdicts), metrics.f1(verdicts)]
    figures += [
        estimate for estimate in (metrics.precision(verdicts), metrics.precision_on_line(verdicts, 0.01)) if estimate
    ]
    assert figures[2].value == pytest.approx(f1_score(truth, values > threshold, zero_division=0))
    for estimate in figures:
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_f1_interval_over_many_test_sets_covers_the_truth():
    rng = np.random.default_rng(9)
    true_recall, alarms, m, n = 0.8, 0.03, 40, 160
    truth = 2 * true_recall * m / (true_recall * m + alarms * n + m)

    def draw():
        hits, false = rng.binomial(m, true_recall), rng.binomial(n, alarms)
        return (Confusion(hits, m - hits, false, n - false),)

    assert 0.92 <= covers(metrics.f1, truth, draw, 600) <= 0.99


def test_precision_without_an_alarm_is_not_given():
    silent = Confusion(0, 5, 0, 10)
    assert metrics.precision(silent) is None
    assert metrics.precision_on_line(silent, 0.01) is None


def test_precision_on_line_at_the_test_sets_own_defect_rate_equals_precision():
    verdicts = Confusion(30, 10, 6, 54)
    assert metrics.precision_on_line(verdicts, 0.4).value == pytest.approx(metrics.precision(verdicts).value)


def test_mean_of_a_sample_has_students_interval():
    from scipy.stats import t

    values = np.random.default_rng(3).gamma(2, 1, 25)
    low, high = t.interval(0.95, 24, values.mean(), values.std(ddof=1) / 5)
    estimate = metrics.mean(values)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((values.mean(), low, high))
    assert metrics.mean([4.0]).low == 4.0
    with pytest.raises(ValueError, match="at least one"):
        metrics.mean([])


def test_recall_by_type_counts_each_type_apart():
    rows = metrics.recall_by_type(1.0, [0.5, 2.0, 3.0], ["dent", "dent", "scratch"])
    assert (rows["dent"]["n"], rows["dent"]["found"], rows["dent"]["value"]) == (2, 1, 0.5)
    assert rows["scratch"]["value"] == 1
