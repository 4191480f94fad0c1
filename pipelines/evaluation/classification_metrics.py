"""Metrics of classifiers on test images, each with its 95 % confidence interval.

Probabilities are float [n, classes], labels int [n]; groups of images (a specimen, a photograph) are resampled as a
whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.intervals import clopper_pearson
from pipelines.evaluation.paired_bootstrap import bootstrap
from pipelines.steps import Estimate

SAMPLES = 1000
BINS = 10

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]


def top_accuracy(probabilities: Probabilities, labels: Labels, k: int = 1) -> Estimate:
    """Return the share of images whose class is among the `k` (1) most probable, with its exact interval."""
    return clopper_pearson(int(in_top(probabilities, labels, k).sum()), len(labels))


def in_top(probabilities: Probabilities, labels: Labels, k: int = 1) -> NDArray[np.bool_]:
    """Return whether the class of each image is among its `k` (1) most probable, bool [n]; ties count by position."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.asarray((order == labels[:, None]).any(axis=1))


def macro_f1(probabilities: Probabilities, labels: Labels, groups: Sequence[str]) -> Estimate:
    """Return the mean of the classes' F1 over the classes that the images show, by bootstrap."""
    predicted, shown = probabilities.argmax(axis=1), np.unique(labels)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = []
        for place in shown:
            right = weights @ ((predicted == place) & (labels == place)).astype(np.float64)
            total = weights @ ((predicted == place).astype(np.float64) + (labels == place))
            scores.append(np.where(total > 0, 2 * right / np.maximum(total, 1e-12), 0.0))
        return np.asarray(np.mean(scores, axis=0))

    return bootstrap(statistic, groups, samples=SAMPLES)


def calibration_error(probabilities: Probabilities, labels: Labels, groups: Sequence[str]) -> Estimate:
    """Return the expected calibration error: the mean distance of certainty and accuracy over ten bins of certainty.

    Source: Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017, equation 3. With few images it is above
    0 even of a perfect model.
    """
    certainty = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = np.minimum((certainty * BINS).astype(int), BINS - 1)
    members = (bins[:, None] == np.arange(BINS)).astype(np.float64)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        distance = np.abs(weights @ (members * (certainty - right)[:, None]))
        return np.asarray(distance.sum(axis=1) / weights.sum(axis=1))

    return bootstrap(statistic, groups, samples=SAMPLES)


def coverage(sets: NDArray[np.bool_], labels: Labels) -> Estimate:
    """Return the share of images whose class is in their conformal set, bool [n, classes], with its exact interval."""
    return clopper_pearson(int(sets[np.arange(len(labels)), labels].sum()), len(labels))


def set_size(sets: NDArray[np.bool_], groups: Sequence[str]) -> Estimate:
    """Return the mean number of classes in the conformal sets, by bootstrap."""
    sizes = sets.sum(axis=1).astype(np.float64)
    return bootstrap(lambda weights: weights @ sizes / weights.sum(axis=1), groups, samples=SAMPLES)


def recall_by_class(
    probabilities: Probabilities, labels: Labels, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return for each class that the images show `n`, `found`, `value`, `low`, `high`."""
    predicted, rows = probabilities.argmax(axis=1), {}
    for place in np.unique(labels):
        n, found = int((labels == place).sum()), int(((labels == place) & (predicted == place)).sum())
        estimate = clopper_pearson(found, n)
        rows[classes[place]] = {"n": float(n), "found": float(found), **estimate.to_json()}
    return rows


def confusion_counts(predicted: Labels, labels: Labels, classes: Sequence[str]) -> dict[str, int]:
    """Return the number of images by `<class>/<predicted class>`, without those that are 0."""
    pairs, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    return {f"{classes[a]}/{classes[b]}": int(count) for (a, b), count in zip(pairs.T, counts, strict=True)}
