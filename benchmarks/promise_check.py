"""Checks with the drift report whether good test images have the distribution of the training images."""

from __future__ import annotations

from typing import Any

from monitoring.drift.report import Observed, compare
from monitoring.drift.thresholds import MINIMUM_REFERENCE


def drift(reference: Observed, current: Observed) -> dict[str, Any]:
    """Return the drift report of good test images against those that the threshold was computed from.

    False alarms are left out, since the report is to explain whether the promise on them is kept. Returns `drifted`
    (None: too few images to compare), `what` (the names of what drifted), and the `distance` and `threshold` of the
    column, of score and descriptors, whose distance is largest relative to its threshold.
    """
    if min(len(reference), len(current)) < MINIMUM_REFERENCE:
        return {"drifted": None, "what": [], "distance": None, "threshold": None}
    report, _ = compare(reference, current)
    columns = [column for column in (report.score, *report.descriptors) if column is not None]
    names = [column.name for column in columns if column.drifted]
    if report.embedding is not None and report.embedding.drifted:
        names.append("embedding")
    furthest = max(columns, key=lambda column: column.distance / column.threshold)
    return {
        "drifted": report.drifted,
        "what": names,
        "distance": furthest.distance,
        "threshold": furthest.threshold,
    }
