"""Whether a promised false-positive rate was kept on good test images, and, where it was not, whether the drift report
would have said that these come from elsewhere.
"""

from __future__ import annotations

from typing import Any

from monitoring.report import Observed, compare
from monitoring.ruler import MINIMUM_REFERENCE
from pipelines.intervals import CONFIDENCE
from pipelines.threshold import ConformalThreshold


def most_alarms(threshold: ConformalThreshold, good: int) -> int:
    """Return how many of `good` images may lie above the threshold, if they come from where its own images come from.

    The 97.5 % point of the number of alarms: with the k-th smallest of n validation scores as the threshold, that is
    beta-binomial with parameters n + 1 - k and k (Angelopoulos and Bates, *A Gentle Introduction to Conformal
    Prediction*, 2021, appendix C).
    """
    from scipy.stats import betabinom

    n, k = threshold.n, threshold.rank
    return int(betabinom.ppf(0.5 + CONFIDENCE / 2, good, n + 1 - k, k))


def drift(reference: Observed, current: Observed) -> dict[str, Any]:
    """Return what the drift report says of good test images beside those that the threshold was set on.

    `drifted` (None: too few images to compare), `what` (the names of what drifted), and the largest `distance` of the
    score and the descriptors, of the `threshold` from which each has drifted.
    """
    if min(len(reference), len(current)) < MINIMUM_REFERENCE:
        return {"drifted": None, "what": [], "distance": None, "threshold": None}
    found, _ = compare(reference, current)
    columns = [column for column in (found.score, *found.descriptors) if column is not None]
    names = [column.name for column in columns if column.drifted]
    if found.embedding is not None and found.embedding.drifted:
        names.append("embedding")
    furthest = max(columns, key=lambda column: column.distance / column.threshold)
    return {
        "drifted": found.drifted,
        "what": names,
        "distance": furthest.distance,
        "threshold": furthest.threshold,
    }
