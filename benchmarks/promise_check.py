"""What the drift report says of good test images: whether they come from where the training images come from."""

from __future__ import annotations

from typing import Any

from monitoring.drift.report import Observed, compare
from monitoring.drift.thresholds import MINIMUM_REFERENCE


def drift(reference: Observed, current: Observed) -> dict[str, Any]:
    """Return what the drift report says of good test images beside those that the threshold was set on, but for their
    false alarms: whether the promise is kept is told already, and this is to say why.

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
