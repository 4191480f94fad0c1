"""Metrics of classifiers against values from their definitions and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, top_k_accuracy_score

from pipelines.evaluation import classification_metrics as metrics


@pytest.fixture
def classified() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 120)
    logits = rng.normal(0, 1, (120, 4)) + 1.5 * np.eye(4)[labels]
    powers = np.exp(logits)
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_metrics_when_compared_with_scikit_learn_then_are_the_same(classified):
    probabilities, labels = classified
    groups = [str(number) for number in range(len(labels))]
    predicted = probabilities.argmax(axis=1)
    assert metrics.top_accuracy(probabilities, labels).value == pytest.approx((predicted == labels).mean())
    top_3 = top_k_accuracy_score(labels, probabilities, k=3)
    assert metrics.top_accuracy(probabilities, labels, 3).value == pytest.approx(top_3)
    estimate = metrics.macro_f1(probabilities, labels, groups)
    assert estimate.value == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert estimate.low < estimate.value < estimate.high


def test_calibration_error_when_certainty_is_right_in_each_bin_then_is_zero():
    probabilities = np.array([[0.75, 0.25]] * 4 + [[0.45, 0.55]] * 20, np.float32)
    labels = np.array([0, 0, 0, 1] + [1] * 11 + [0] * 9)
    groups = [str(number) for number in range(24)]
    assert metrics.calibration_error(probabilities, labels, groups).value == pytest.approx(0, abs=1e-6)
    assert metrics.calibration_error(probabilities, 0 * labels, groups).value == pytest.approx(
        (4 * 0.25 + 20 * 0.55) / 24, abs=1e-6
    )


def test_sets_when_counted_then_give_coverage_and_size():
    sets = np.array([[True, False, False], [True, True, False], [False, False, True], [True, True, True]])
    labels = np.array([0, 2, 2, 1])
    assert metrics.coverage(sets, labels).value == 0.75
    assert metrics.set_size(sets, list("abcd")).value == 1.75


def test_confusion_and_recall_when_counted_then_agree():
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 0]]
    labels = np.array([0, 0, 1, 2, 2])
    classes = ("ash", "beech", "elm")
    assert metrics.confusion_counts(probabilities.argmax(axis=1), labels, classes) == {
        "ash/ash": 1,
        "ash/beech": 1,
        "beech/beech": 1,
        "elm/ash": 1,
        "elm/elm": 1,
    }
    by_class = metrics.recall_by_class(probabilities, labels, classes)
    assert {name: row["value"] for name, row in by_class.items()} == {"ash": 0.5, "beech": 1.0, "elm": 0.5}
