"""Calibrates a classifier: the temperature of its logits, and the threshold of its conformal sets."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.classification.predict import softmax

COVERAGE = 0.9
_WIDEST = 4.0  # of the logarithm of the temperature


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature that minimises the log-loss of logits [n, classes] (Guo et al., *On Calibration of Modern
    Neural Networks*, ICML 2017), between exp(-4) and exp(4).
    """
    from scipy.optimize import minimize_scalar

    values, places = logits.astype(np.float64), np.arange(len(labels))

    def loss(logarithm: float) -> float:
        scaled = values / math.exp(logarithm)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[places, labels]))

    return math.exp(float(minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded").x))


def set_threshold(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float, coverage: float = COVERAGE
) -> float:
    """Return the least probability of a class in a conformal set, by split conformal prediction with the score 1 - p.

    With too few images for the coverage, n < coverage / (1 - coverage), every class is in the set: 0.

    Args:
        logits: [n, classes], of images that the network was not trained on.
        labels: [n].
        temperature: divides the logits.
        coverage: share of images whose class is in the set. Default 0.9.
    """
    scores = np.sort(1 - softmax(logits / temperature)[np.arange(len(labels)), labels].astype(np.float64))
    rank = math.ceil((len(scores) + 1) * coverage)
    return 0.0 if rank > len(scores) else float(max(0.0, 1 - scores[rank - 1]))
