"""Thresholds: the promise against simulation, the optima against brute force, and the errors for too few data."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from pipelines.errors import NotEnoughImages
from pipelines.tasks.anomaly.threshold import choose, conformal, f1_optimal, least_cost, most_alarms
from pipelines.tasks.anomaly.threshold_report import ThresholdReport

COSTS = {"cost_false_alarm": 1.0, "cost_miss": 20.0, "defect_rate": 0.05}
RULES = {"policy": "least_cost", "false_positive_rate": 0.05, **COSTS}

finite = st.floats(0, 1e6, allow_nan=False, width=32)
sets = st.lists(finite, min_size=1, max_size=40)


def cost(threshold, good, anomalies, cost_false_alarm, cost_miss, defect_rate):
    return (1 - defect_rate) * cost_false_alarm * np.mean(np.asarray(good) > threshold) + (
        defect_rate * cost_miss * np.mean(np.asarray(anomalies) <= threshold)
    )


def f1(threshold, good, anomalies):
    hits, alarms = np.sum(np.asarray(anomalies) > threshold), np.sum(np.asarray(good) > threshold)
    return 2 * hits / (hits + alarms + len(anomalies))


def every_threshold(good, anomalies):
    scores = np.unique(np.concatenate([good, anomalies]).astype(float))
    return [scores[0] - 1, *scores]


@given(sets, st.floats(0.001, 0.5))
def test_conformal_for_any_scores_is_the_ranked_score_or_the_weakest_promise(scores, rate):
    threshold = conformal(scores, rate)
    n = len(scores)
    rank = math.ceil((n + 1) * (1 - rate) - 1e-9)
    if rank <= n:
        assert (threshold.value, threshold.promised, threshold.note) == (sorted(scores)[rank - 1], rate, None)
    else:
        assert (threshold.value, threshold.promised) == (max(scores), 1 / (n + 1))
        assert threshold.note is not None


def test_conformal_with_99_images_keeps_one_percent_and_with_98_does_not():
    kept, weaker = conformal(range(99), 0.01), conformal(range(98), 0.01)
    assert (kept.value, kept.promised, kept.note) == (98, 0.01, None)
    assert (weaker.value, weaker.promised) == (97, pytest.approx(1 / 99))
    assert weaker.note == (
        "A false-positive rate of 1 % cannot be promised from 98 good validation images (it takes 99); the smallest"
        " that can is 1.01 %, and that is the promise made."
    )


@pytest.mark.parametrize("n", [19, 100, 333])
def test_conformal_over_many_validation_sets_keeps_the_promise_and_follows_its_beta_distribution(n):
    rng = np.random.default_rng(n)
    rate = 0.05
    # The scores of good images are uniform here, so that 1 - threshold is the false-positive rate realised.
    realised = np.array([1 - conformal(rng.random(n), rate).value for _ in range(4000)])
    threshold = conformal(np.arange(n), rate)
    assert realised.mean() <= rate + 4 * realised.std() / math.sqrt(len(realised))
    assert realised.mean() == pytest.approx(threshold.realised.value, abs=4 * realised.std() / math.sqrt(len(realised)))
    inside = np.mean((realised >= threshold.realised.low) & (realised <= threshold.realised.high))
    assert inside == pytest.approx(0.95, abs=0.02)
    assert threshold.realised.high == pytest.approx(beta.ppf(0.975, n + 1 - threshold.rank, threshold.rank))


@pytest.mark.parametrize(("n", "good", "rate"), [(163, 271, 0.01), (8, 16, 0.1), (60, 400, 0.05)])
def test_most_alarms_is_exceeded_in_at_most_one_of_forty_draws_from_one_source(n, good, rate):
    generator, exceeded, tighter = np.random.default_rng(0), 0, 0
    for _ in range(4000):
        threshold = conformal(generator.random(n), rate)
        alarms = int((generator.random(good) > threshold.value).sum())
        exceeded += alarms > most_alarms(threshold.n, threshold.rank, good)
        tighter += alarms > most_alarms(threshold.n, threshold.rank, good) - 1
    assert exceeded / 4000 < 0.032
    assert tighter / 4000 > 0.018


def test_conformal_with_tied_scores_calls_none_of_them_anomalous():
    assert conformal([1.0] * 50, 0.1).value == 1.0


@pytest.mark.parametrize(
    ("scores", "rate", "error", "message"),
    [
        ([], 0.05, NotEnoughImages, "no good validation images"),
        ([1.0, float("nan")], 0.05, ValueError, "not finite"),
        ([1.0], 1.0, ValueError, "between 0 and 1"),
    ],
)
def test_conformal_when_nothing_can_be_promised_says_why(scores, rate, error, message):
    with pytest.raises(error, match=message):
        conformal(scores, rate)


@given(sets, sets)
@settings(max_examples=200)
def test_f1_optimal_for_any_scores_reaches_the_best_f1_there_is(good, anomalies):
    best = max(f1(t, good, anomalies) for t in every_threshold(good, anomalies))
    assert f1(f1_optimal(good, anomalies), good, anomalies) == pytest.approx(best)


@given(sets, sets, st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0.001, 0.999))
@settings(max_examples=200)
def test_least_cost_for_any_scores_and_costs_reaches_the_lowest_cost_there_is(good, anomalies, alarm, miss, defects):
    costs = {"cost_false_alarm": alarm, "cost_miss": miss, "defect_rate": defects}
    lowest = min(cost(t, good, anomalies, **costs) for t in every_threshold(good, anomalies))
    assert cost(least_cost(good, anomalies, **costs), good, anomalies, **costs) == pytest.approx(lowest, abs=1e-9)


def test_least_cost_when_sides_are_apart_lies_in_the_middle_between_them():
    assert least_cost([1, 2, 3], [7, 8], **COSTS) == 5


def test_least_cost_when_misses_grow_dearer_never_rises():
    rng = np.random.default_rng(1)
    good, anomalies = rng.normal(0, 1, 300), rng.normal(1.5, 1, 60)
    thresholds = [
        least_cost(good, anomalies, cost_false_alarm=1, cost_miss=c, defect_rate=0.05)
        for c in (0.1, 1, 5, 20, 100, 1e4)
    ]
    assert thresholds == sorted(thresholds, reverse=True)


def test_choose_when_least_cost_would_break_the_promise_serves_the_conformal_one_and_says_so():
    rng = np.random.default_rng(2)
    good, anomalies = rng.normal(0, 1, 200), rng.normal(0.5, 1, 50)
    chosen = choose(good, anomalies, **{**RULES, "cost_miss": 1000.0})
    assert chosen.value == conformal(good, 0.05).value
    assert chosen.policy == "conformal"
    assert chosen.report.thresholds["least_cost"].value < chosen.value
    assert "would break the promised false-positive rate of 5 %" in chosen.report.notes[0]


@given(st.integers(0, 10_000), st.sampled_from(["least_cost", "f1", "conformal"]))
@settings(max_examples=60)
def test_choose_whatever_the_policy_never_serves_below_the_conformal_threshold(seed, policy):
    rng = np.random.default_rng(seed)
    good, anomalies = rng.gamma(2, 1, rng.integers(1, 150)), rng.gamma(3, 1.5, rng.integers(0, 60))
    chosen = choose(good, anomalies, **{**RULES, "policy": policy})
    assert chosen.value >= conformal(good, 0.05).value
    assert np.isfinite(chosen.value)


@pytest.mark.parametrize(("n", "policy"), [(0, "conformal"), (9, "conformal"), (10, "least_cost")])
def test_choose_with_fewer_than_ten_anomalies_uses_the_conformal_threshold_with_a_note(n, policy):
    chosen = choose(np.arange(200.0), np.arange(300.0, 300.0 + n), **RULES)
    assert chosen.policy == policy
    assert [note for note in chosen.report.notes if f"there are {n}" in note] == (
        [] if policy == "least_cost" else [chosen.report.notes[0]]
    )


def test_choose_describes_every_threshold_with_intervals_and_the_promise():
    rng = np.random.default_rng(3)
    good, anomalies = rng.normal(0, 1, 150), rng.normal(3, 1, 40)
    report = choose(good, anomalies, **RULES).report
    assert set(report.thresholds) == {"conformal", "f1", "least_cost"}
    assert (report.n_validation, report.n_anomaly_threshold) == (150, 40)
    assert (report.promised_fpr, report.promise_kept_at) == (0.05, 0.05)
    assert ThresholdReport.from_json(report.to_json()) == report
    for considered in report.thresholds.values():
        for estimate in (considered.false_positive_rate, considered.recall):
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
            assert estimate.low < estimate.high


def test_choose_when_no_anomaly_lies_above_the_threshold_says_so():
    chosen = choose(np.arange(100.0), np.zeros(20), **RULES)
    assert any("tells none of them from good images" in note for note in chosen.report.notes)


def test_choose_for_an_unknown_policy_lists_the_valid_ones():
    with pytest.raises(ValueError, match="conformal, f1, least_cost"):
        choose([1.0], [], **{**RULES, "policy": "guess"})
