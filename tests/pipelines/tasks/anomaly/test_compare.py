"""The comparison of two versions: the rules of promotion, on simulated scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.config.project import PromotionRules
from pipelines.tasks.anomaly.compare import ScoredContender, judge

RULES = PromotionRules(minimum_auroc=0.8, margin=0.05, bootstrap_samples=400)


def contender(version, *, lift=2.5, n=120, m=40, synthetic=0, threshold=2.5, promise=0.05, seed=0, own=1):
    """Make a version whose anomalies score `lift` above good images; versions share most of their noise."""
    shared, noise = np.random.default_rng(seed), np.random.default_rng(own)
    card = SimpleNamespace(threshold=threshold, threshold_detail=SimpleNamespace(promise_kept_at=promise))

    def scores(count, centre):
        return shared.normal(0, 1, count) + noise.normal(0, 0.2, count) + centre

    return ScoredContender(version, SimpleNamespace(card=card), scores(n, 0), scores(m, lift), scores(synthetic, lift))


def judged(challenger, champion=None, rules=RULES):
    groups = [f"g{number}" for number in range(len(challenger.good))]
    anomaly_groups = [f"a{number}" for number in range(len(challenger.anomalies))]
    comparison = judge(challenger, champion, rules, good_groups=groups, anomaly_groups=anomaly_groups)
    return comparison, comparison.notes


def test_compare_without_a_champion_lets_the_minimum_alone_decide():
    fit, _ = judged(contender("1"))
    assert fit.fit
    assert fit.difference is None
    assert "meets the minimum of 0.8" in fit.reasons[0]
    weak, _ = judged(contender("1", lift=0.5))
    assert not weak.fit
    assert "is below the project's minimum of 0.8" in weak.reasons[0]


@pytest.mark.parametrize(("lift", "fit"), [(2.5, True), (3.5, True), (1.4, False)])
def test_compare_with_a_champion_refuses_what_may_be_worse_beyond_the_margin(lift, fit):
    verdict, _ = judged(contender("2", lift=lift), contender("1", own=2))
    assert verdict.fit == fit
    assert verdict.difference.low <= verdict.difference.value <= verdict.difference.high
    assert ("margin of 0.05" in " ".join(verdict.reasons)) or fit


def test_compare_of_the_same_scores_finds_no_difference_and_agrees():
    verdict, _ = judged(contender("2"), contender("1"))
    assert verdict.fit
    assert (verdict.difference.low, verdict.difference.high) == (0, 0)


def test_compare_with_a_margin_of_nought_refuses_unless_it_is_surely_as_good():
    strict = PromotionRules(minimum_auroc=0.5, margin=0, bootstrap_samples=400)
    assert not judged(contender("2", lift=2.4), contender("1", own=2), strict)[0].fit
    assert judged(contender("2", lift=5), contender("1", own=2, lift=1), strict)[0].fit


@pytest.mark.parametrize(("anomalies", "basis"), [(19, "80 synthetic defects"), (20, "20 test anomalies")])
def test_compare_with_fewer_than_twenty_anomalies_rests_on_synthetic_defects_and_says_so(anomalies, basis):
    synthetic = 80 if anomalies < 20 else 0
    verdict, notes = judged(contender("1", m=anomalies, synthetic=synthetic))
    assert verdict.basis == f"{basis} and 120 good test images"
    assert any("synthetic defects decide" in note for note in notes) == (anomalies < 20)


def test_compare_with_no_anomalies_refuses_a_version_that_breaks_its_promise_on_test_images():
    verdict, _ = judged(contender("1", m=0, synthetic=80, threshold=1.0))
    assert not verdict.fit
    assert "is above the promised 5 %" in verdict.reasons[0]


def test_compare_with_no_anomalies_forgives_a_rate_above_the_promise_by_chance():
    lucky = contender("1", m=0, n=30, synthetic=30)
    rate = float(np.mean(lucky.good > np.sort(lucky.good)[-3]))
    assert rate > 0.05
    unlucky = contender("1", m=0, n=30, synthetic=30, threshold=float(np.sort(lucky.good)[-3]))
    assert judged(unlucky)[0].fit


def test_compare_with_enough_anomalies_only_notes_a_broken_promise():
    verdict, notes = judged(contender("1", threshold=1.0))
    assert verdict.fit
    assert any("Mind that its false-positive rate" in note for note in notes)


def test_compare_with_no_anomalies_refuses_one_that_misses_synthetic_defects_the_champion_finds():
    verdict, _ = judged(contender("2", m=0, synthetic=80, lift=1.4), contender("1", m=0, synthetic=80, own=2))
    assert not verdict.fit
    assert "AUROC on synthetic defects may be worse" in verdict.reasons[-1]


def test_compare_without_good_test_images_cannot_judge():
    verdict, _ = judged(contender("1", n=0))
    assert not verdict.fit
    assert verdict.reasons == ["there are no good test images to judge it on"]


def test_metrics_leave_out_what_the_samples_do_not_allow():
    metrics = contender("1", m=0, synthetic=10).metrics()
    assert metrics.auroc is metrics.recall is None
    assert metrics.synthetic_auroc.value > 0.9
    assert contender("1").metrics().synthetic_auroc is None
