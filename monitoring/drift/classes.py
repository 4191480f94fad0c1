"""Compares what a classifier predicts: the shares of its classes, and how often it is unsure."""

from __future__ import annotations

import numpy as np

from monitoring.drift import thresholds
from monitoring.drift.comparison import ClassShare, ClassShift, Observed, UnsureShift

_SHOWN = 10  # classes


def compare_classes(reference: Observed, current: Observed) -> ClassShift | None:
    """Return how far the distribution of predicted classes moved; None of a model without classes."""
    if reference.classes is None or current.classes is None:
        return None
    names, places = np.unique(np.concatenate([reference.classes, current.classes]), return_inverse=True)
    n = len(reference)
    before, after = (np.bincount(part, minlength=len(names)) for part in (places[:n], places[n:]))
    shares = before / n, after / len(current)
    distance = float(np.abs(shares[1] - shares[0]).sum() / 2)
    threshold = thresholds.class_threshold(before, after)
    order = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:_SHOWN]
    moved = [ClassShare(str(names[place]), float(shares[0][place]), float(shares[1][place])) for place in order]
    return ClassShift(distance, threshold, distance >= threshold, moved)


def compare_unsure(reference: Observed, current: Observed) -> UnsureShift | None:
    """Return how the share of unsure predictions changed; None of a model without classes."""
    if reference.unsure is None or current.unsure is None:
        return None
    before, after = float(reference.unsure.mean()), float(current.unsure.mean())
    threshold = thresholds.unsure_threshold(before, len(reference), after, len(current))
    return UnsureShift(before, after, threshold, after - before >= threshold)
