"""Fits the head on embeddings: multinomial logistic regression, its penalty chosen by grouped cross-validation."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.classification.fitting.data import Head, TunedHead, log_losses

STRENGTHS = (0.003, 0.01, 0.03, 0.1)
FOLDS = 5


def tune_head(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    weights: NDArray[np.float32],
    *,
    seed: int = 0,
    strengths: tuple[float, ...] = STRENGTHS,
) -> TunedHead:
    """Choose the penalty by the log-loss of grouped, stratified cross-validation, and fit the head to all images.

    Args:
        embeddings: [n, d].
        labels: [n], 0 to classes - 1, each of them at least once.
        groups: [n]; a group is never on both sides of a fold.
        weights: [n], how much each image counts.
        seed: seed of the folds. Default 0.
        strengths: inverse penalties to try. Default `STRENGTHS`.
    """
    classes = int(labels.max()) + 1
    folds = _folds(labels, groups, seed)
    out_of_fold = {strength: np.zeros((len(labels), classes), np.float32) for strength in strengths}
    for fold in range(int(folds.max()) + 1):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for strength in strengths:
            head = fit_head(embeddings[inside], labels[inside], weights[inside], strength, classes)
            out_of_fold[strength][outside] = head.logits(embeddings[outside])
    losses = {
        strength: float(np.average(log_losses(logits, labels), weights=weights))
        for strength, logits in out_of_fold.items()
    }
    best = min(losses, key=lambda strength: losses[strength])
    return TunedHead(fit_head(embeddings, labels, weights, best, classes), best, out_of_fold[best], losses)


def fit_head(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
    strength: float,
    classes: int,
) -> Head:
    """Fit multinomial logistic regression with an L2 penalty to standardised embeddings [n, d].

    Classes without an image get the least logit of all.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    rows = embeddings.astype(np.float64)
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    model = LogisticRegression(C=strength, tol=1e-3, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((rows - mean) / scale, labels, weights)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn gives one row then
        coefficients, intercept = (
            np.stack([-coefficients[0], coefficients[0]]) / 2,
            np.array([-1, 1]) * intercept[0] / 2,
        )
    scaled = np.zeros((rows.shape[1], classes))
    bias = np.full(classes, intercept.min() - 10.0)
    scaled[:, model.classes_] = (coefficients / scale).T
    bias[model.classes_] = intercept - coefficients @ (mean / scale)
    return Head(scaled.astype(np.float32), bias.astype(np.float32))


def _folds(labels: NDArray[np.int64], groups: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """Return the fold of each image; fewer than five where a class has fewer groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(max(2, min(FOLDS, fewest)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with a single group
        for number, (_, outside) in enumerate(splitter.split(labels, labels, groups)):
            folds[outside] = number
    return folds
