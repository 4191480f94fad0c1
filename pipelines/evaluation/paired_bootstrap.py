"""Estimate the difference of two models on the same images, in AUROC or in a mean, by a paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.evaluation.intervals import CONFIDENCE
from pipelines.steps import Estimate

FEWEST_GROUPS = 10
_DRAWS, _ROWS = 200, 1024

Weights = NDArray[np.float32]


def auroc_difference(
    good: tuple[ArrayLike, ArrayLike],
    anomalies: tuple[ArrayLike, ArrayLike],
    *,
    good_groups: Sequence[str],
    anomaly_groups: Sequence[str],
    samples: int,
    seed: int = 0,
) -> Estimate:
    """Return the first model's AUROC minus the second's, with the central 95 % of its bootstrap distribution.

    Good images and anomalies are resampled separately (stratified), and the two scores of an image together (paired),
    which cancels variation common to both models. Images of a group (a part, a batch) are correlated, so whole groups
    are resampled; a class with fewer than 10 groups is resampled by single images (Efron and Tibshirani, *An
    Introduction to the Bootstrap*, 1993, chapters 8 and 13).

    Args:
        good: scores of the good images by the first and by the second model, each [n].
        anomalies: scores of the anomalies, each [m].
        good_groups: group of each good image, [n].
        anomaly_groups: group of each anomaly, [m].
        samples: number of bootstrap resamples.
        seed: seed of the resampling. Default 0.
    """
    rng = np.random.default_rng(seed)
    sides = [np.asarray(scores, dtype=np.float64) for scores in (*good, *anomalies)]
    good_first, good_second, anomaly_first, anomaly_second = sides
    of_good = draw_weights(rng, good_groups, samples)
    of_anomalies = draw_weights(rng, anomaly_groups, samples)
    total, whole = np.zeros(samples), 0.0
    for start in range(0, len(anomaly_first), _ROWS):
        part = slice(start, start + _ROWS)
        ahead = _wins(anomaly_first[part], good_first) - _wins(anomaly_second[part], good_second)
        whole += float(ahead.sum(dtype=np.float64))
        for draw in range(0, samples, _DRAWS):
            rows = slice(draw, draw + _DRAWS)
            total[rows] += np.sum((of_anomalies[rows, part] @ ahead) * of_good[rows], axis=1, dtype=np.float64)
    value = whole / (len(good_first) * len(anomaly_first))
    draws = total / (of_good.sum(axis=1, dtype=np.float64) * of_anomalies.sum(axis=1, dtype=np.float64))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def draw_weights(rng: np.random.Generator, groups: Sequence[str], samples: int) -> Weights:
    """Return how often each image occurs in each resample, [samples, images]; groups are resampled as a whole."""
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        names, group = np.arange(len(groups)), np.arange(len(groups))
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    return counts[:, group].astype(np.float32)


def _wins(anomalies: NDArray[np.float64], good: NDArray[np.float64]) -> Weights:
    """Return 1 where an anomaly scores above a good image, 0.5 where they tie, else 0: [anomalies, good]."""
    above = anomalies[:, None] > good
    return above.astype(np.float32) + np.float32(0.5) * (anomalies[:, None] == good)


def mean_difference(
    first: ArrayLike, second: ArrayLike, *, groups: Sequence[str], samples: int, seed: int = 0
) -> Estimate:
    """Return the mean of `first` minus that of `second`, values [n] of the same images, with the central 95 % of its
    bootstrap distribution; groups are resampled as in `auroc_difference`.

    Args:
        first: a value of each image by the first model: 1 where it is right, its loss, …
        second: the values by the second model.
        groups: group of each image.
        samples: number of bootstrap resamples.
        seed: seed of the resampling. Default 0.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap(lambda weights: weights @ differences / weights.sum(axis=1), groups, samples=samples, seed=seed)


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    groups: Sequence[str],
    *,
    samples: int,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of images with the central 95 % of its bootstrap distribution.

    Args:
        statistic: takes how often each image counts, [k, n], and returns its value for each row, [k].
        groups: group of each image, [n]; groups are resampled as in `auroc_difference`.
        samples: number of bootstrap resamples.
        seed: seed of the resampling. Default 0.
    """
    rng = np.random.default_rng(seed)
    value = float(statistic(np.ones((1, len(groups))))[0])
    draws = statistic(draw_weights(rng, groups, samples).astype(np.float64))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)))
