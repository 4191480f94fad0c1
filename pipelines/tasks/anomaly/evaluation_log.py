"""What an anomaly detector's evaluation logs beside the metrics: tables of thresholds, scores and the worst errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.plots import worst

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.anomaly.scored_test_set import ScoredTestSet


def evaluation_tables(package: AnomalyPackage, tested: ScoredTestSet) -> dict[str, pd.DataFrame]:
    """Return the tables by name."""
    import pandas as pd

    threshold = package.card.threshold
    misses, alarms = worst(tested.rows, threshold)
    shown = ["sha256", "key", "label", "type", "score"]
    return {
        "thresholds": pd.DataFrame(_threshold_rows(package)),
        "test_scores": tested.rows[shown].assign(is_anomaly=tested.rows["score"] > threshold),
        "worst": pd.concat([misses, alarms])[shown],
    }


def _threshold_rows(package: AnomalyPackage) -> list[dict[str, Any]]:
    """Return a row for each threshold considered, with its bounds on the samples that it was set on."""
    rows = []
    detail = package.card.threshold_detail
    for name, considered in detail.thresholds.items() if detail else ():
        row = {"threshold": name, "served": name == package.card.threshold_policy, "value": considered.value}
        for metric, estimate in (
            ("false_positive_rate", considered.false_positive_rate),
            ("recall", considered.recall),
        ):
            row |= {
                f"{metric}{end}": getattr(estimate, key) if estimate else None
                for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
        rows.append(row | {"f1": considered.f1, "expected_cost": considered.expected_cost})
    return rows
