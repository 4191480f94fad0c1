"""How a threshold was set, as `model.json` keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.steps import Estimate, Record


@dataclass(frozen=True)
class ConsideredThreshold(Record):
    """One threshold, described on the samples that it was set on; what the test subsets give is to be quoted.

    Attributes:
        value: the threshold on the anomaly score.
        false_positive_rate: share of good images above it.
        recall: share of anomalies above it; None without anomalies.
        f1: F1 of both, 0 to 1; None without anomalies.
        expected_cost: expected cost of an image on the line; None without anomalies.
    """

    value: float
    false_positive_rate: Estimate
    recall: Estimate | None = None
    f1: float | None = None
    expected_cost: float | None = None


@dataclass(frozen=True)
class ThresholdReport(Record):
    """The promise of a threshold, and all thresholds that were considered.

    Attributes:
        policy_asked: the project's policy: least_cost, conformal or f1.
        policy_served: the policy whose threshold is served.
        n_validation: number of good validation images.
        n_anomaly_threshold: number of `anomaly/threshold` samples.
        promised_fpr: the false-positive rate asked for, 0 to 1.
        promise_kept_at: the rate that so many images can promise.
        conformal_rank: rank of the conformal threshold among the validation scores, from 1, the smallest.
        costs: cost_false_alarm, cost_miss and defect_rate of the project.
        confidence: confidence of all intervals.
        thresholds: the thresholds considered, by policy.
        notes: sentences for people.
    """

    policy_asked: str
    policy_served: str
    n_validation: int
    n_anomaly_threshold: int
    promised_fpr: float
    promise_kept_at: float
    conformal_rank: int
    costs: dict[str, float]
    confidence: float
    thresholds: dict[str, ConsideredThreshold]
    notes: list[str] = field(default_factory=list)
