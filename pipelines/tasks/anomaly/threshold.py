"""Thresholds on the anomaly score: an image is called anomalous when its score is **above** the threshold.

Three ways to set one, each on samples that neither training nor the test metrics use:

- `conformal`: from good images alone, with a promised false-positive rate (split conformal prediction);
- `f1`: the best F1 on the good validation and the `anomaly/threshold` samples;
- `least_cost`: the lowest expected cost for each image, by the project's costs and its expected defect rate.

`choose` computes all that the samples allow and names the one to serve. The one served never lies below the conformal
one, so the promised false-positive rate holds whatever the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.config.metrics import percent
from pipelines.errors import NotEnoughImages
from pipelines.evaluation.intervals import CONFIDENCE, beta_quantile, clopper_pearson
from pipelines.steps import Estimate
from pipelines.tasks.anomaly.threshold_report import ConsideredThreshold, ThresholdReport

MINIMUM_ANOMALIES = 10
POLICY_NAMES = {"conformal": "conformal", "f1": "best F1", "least_cost": "least cost"}

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class ConformalThreshold:
    """A threshold with the false-positive rate it promises.

    `promised` is the rate asked for where the number of images allows it, else the smallest one that can be kept.
    `realised` is the false-positive rate to expect, with the central 95 % of its distribution.
    """

    value: float
    asked: float
    promised: float
    rank: int
    n: int
    realised: Estimate
    note: str | None


@dataclass(frozen=True)
class Choice:
    """The threshold to serve, and how it was set.

    Attributes:
        value: the threshold.
        policy: the policy that set it.
        report: how it was set.
    """

    value: float
    policy: str
    report: ThresholdReport


def conformal(good: ArrayLike, false_positive_rate: float) -> ConformalThreshold:
    """Return the smallest validation score that keeps the promised false-positive rate.

    With n exchangeable scores the ceil((n + 1)(1 - a))-th smallest is exceeded by a further good image with
    probability at most a (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005, section 2;
    Angelopoulos and Bates, *A Gentle Introduction to Conformal Prediction*, 2021, section 1). Over draws of the
    validation set the rate realised by the k-th smallest score is Beta(n + 1 - k, k) distributed (the same, section
    3.2). Nothing below 1/(n + 1) can be promised: asked for less, the promise made is 1/(n + 1), and `note` says so.

    Raises NotEnoughImages without scores, ValueError if one is not finite or the rate is not between 0 and 1.
    """
    scores = np.sort(_finite(good, "validation"))
    n = len(scores)
    if n == 0:
        raise NotEnoughImages(
            "there are no good validation images to set a threshold on: add good images, then retrain"
        )
    if not 0 < false_positive_rate < 1:
        raise ValueError(f"a false-positive rate lies between 0 and 1, not at {false_positive_rate}")
    # (n + 1) - floor((n + 1) a) is ceil((n + 1)(1 - a)) without losing a rank to 1 - a in binary.
    rank = n + 1 - math.floor((n + 1) * false_positive_rate + 1e-9)
    promised, note = false_positive_rate, None
    if rank > n:
        rank, promised = n, 1 / (n + 1)
        needed = math.ceil(1 / false_positive_rate - 1e-9) - 1
        note = (
            f"A false-positive rate of {percent(false_positive_rate)} cannot be promised from {n} good validation"
            f" images (it takes {needed}); the smallest that can is {percent(promised)}, and that is the promise made."
        )
    return ConformalThreshold(
        value=float(scores[rank - 1]),
        asked=false_positive_rate,
        promised=promised,
        rank=rank,
        n=n,
        realised=_realised_rate(n, rank),
        note=note,
    )


def most_alarms(n: int, rank: int, good: int, point: float = 0.5 + CONFIDENCE / 2) -> int:
    """Return how many of `good` images may lie above a conformal threshold, if they come from where its own come from.

    The `point` (0..1) of the distribution of the number of alarms, by default the upper end of its central 95 %. With
    the `rank`-th smallest of `n` validation scores as the threshold, that distribution is beta-binomial with parameters
    n + 1 - rank and rank (Angelopoulos and Bates, *A Gentle Introduction to Conformal Prediction*, 2021, appendix C).
    """
    from scipy.stats import betabinom

    return int(betabinom.ppf(point, good, n + 1 - rank, rank))


def f1_optimal(good: ArrayLike, anomalies: ArrayLike) -> float:
    """Return the threshold with the highest F1 on these samples, F1 = 2 TP / (2 TP + FP + FN).

    F1 depends on how many of the samples are anomalies; this is the F1 of the samples as they are.
    """

    def f1(false_alarms: Scores, detected: Scores, n_good: int, n_anomalies: int) -> Scores:
        return 2 * detected / (detected + false_alarms + n_anomalies)

    return _best(good, anomalies, f1)


def least_cost(
    good: ArrayLike, anomalies: ArrayLike, *, cost_false_alarm: float, cost_miss: float, defect_rate: float
) -> float:
    """Return the threshold with the lowest expected cost for each image on the line.

    The cost is (1 - p) c_fa FPR + p c_miss (1 - recall), where p is the expected defect rate (Elkan, "The foundations
    of cost-sensitive learning", IJCAI 2001): the share of anomalies among the samples plays no part.
    """

    def saving(false_alarms: Scores, detected: Scores, n_good: int, n_anomalies: int) -> Scores:
        return -_cost(false_alarms / n_good, detected / n_anomalies, cost_false_alarm, cost_miss, defect_rate)

    return _best(good, anomalies, saving)


def choose(
    good: ArrayLike,
    anomalies: ArrayLike,
    *,
    policy: str,
    false_positive_rate: float,
    cost_false_alarm: float,
    cost_miss: float,
    defect_rate: float,
) -> Choice:
    """Set every threshold that the samples allow and choose the one to serve by the project's policy.

    Args:
        good: scores of the good validation images, [n].
        anomalies: scores of the `anomaly/threshold` samples, [m]; with fewer than 10 of them only the conformal
            threshold exists, whatever the policy.
        policy: `least_cost`, `conformal` or `f1`.

    Raises NotEnoughImages without good images, ValueError for an unknown policy or a score that is not finite.
    """
    if policy not in POLICY_NAMES:
        raise ValueError(f"threshold policy {policy!r} is not one of {', '.join(sorted(POLICY_NAMES))}")
    good, anomalies = _finite(good, "validation"), _finite(anomalies, "anomaly/threshold")
    promise = conformal(good, false_positive_rate)
    notes = [promise.note] if promise.note else []
    values = {"conformal": promise.value}
    if len(anomalies) >= MINIMUM_ANOMALIES:
        values["f1"] = f1_optimal(good, anomalies)
        values["least_cost"] = least_cost(
            good, anomalies, cost_false_alarm=cost_false_alarm, cost_miss=cost_miss, defect_rate=defect_rate
        )

    served, value = policy, values.get(policy)
    if value is None:
        served, value = "conformal", promise.value
        notes.append(
            f"The {POLICY_NAMES[policy]} threshold needs {MINIMUM_ANOMALIES} anomaly/threshold samples and there are"
            f" {len(anomalies)}; the conformal threshold is used, which needs none."
        )
    elif value < promise.value:
        served, value = "conformal", promise.value
        notes.append(
            f"The {POLICY_NAMES[policy]} threshold ({values[policy]:.6g}) would break the promised false-positive rate"
            f" of {percent(promise.promised)}; the conformal threshold ({promise.value:.6g}) is used."
        )

    if len(anomalies) and not np.any(anomalies > value):
        notes.append(
            f"No anomaly/threshold sample ({len(anomalies)}) lies above the served threshold: this model tells none of"
            " them from good images at the promised false-positive rate and the stated costs."
        )

    costs = {"cost_false_alarm": cost_false_alarm, "cost_miss": cost_miss, "defect_rate": defect_rate}
    thresholds = {name: _described(t, good, anomalies, costs) for name, t in values.items()}
    # Chosen by its rank alone, the conformal threshold has a known distribution; the others are counted.
    thresholds["conformal"] = replace(thresholds["conformal"], false_positive_rate=promise.realised)
    report = ThresholdReport(
        policy_asked=policy,
        policy_served=served,
        n_validation=len(good),
        n_anomaly_threshold=len(anomalies),
        promised_fpr=promise.asked,
        promise_kept_at=promise.promised,
        conformal_rank=promise.rank,
        costs=costs,
        confidence=CONFIDENCE,
        thresholds=thresholds,
        notes=notes,
    )
    return Choice(value=value, policy=served, report=report)


def _described(threshold: float, good: Scores, anomalies: Scores, costs: dict[str, float]) -> ConsideredThreshold:
    """Describe a threshold on the samples it was set on."""
    alarms, detected = int(np.sum(good > threshold)), int(np.sum(anomalies > threshold))
    rate = clopper_pearson(alarms, len(good))
    if not len(anomalies):
        return ConsideredThreshold(threshold, rate)
    recall = clopper_pearson(detected, len(anomalies))
    return ConsideredThreshold(
        threshold,
        rate,
        recall,
        f1=2 * detected / (detected + alarms + len(anomalies)),
        expected_cost=float(_cost(alarms / len(good), recall.value, **costs)),
    )


def _realised_rate(n: int, rank: int) -> Estimate:
    """Return mean and central 95 % interval of Beta(n + 1 - rank, rank)."""
    a, b, tail = n + 1 - rank, rank, (1 - CONFIDENCE) / 2
    return Estimate(a / (a + b), beta_quantile(tail, a, b), beta_quantile(1 - tail, a, b))


def _cost(rate: Any, recall: Any, cost_false_alarm: float, cost_miss: float, defect_rate: float) -> Any:
    return (1 - defect_rate) * cost_false_alarm * rate + defect_rate * cost_miss * (1 - recall)


def _best(good: ArrayLike, anomalies: ArrayLike, merit: Callable[[Scores, Scores, int, int], Scores]) -> float:
    """Return the threshold of the highest merit; of several equally good ones the highest, for fewer false alarms.

    Tried are the middles between neighbouring scores (so that a sample on either side has room), everything flagged
    (just below the lowest score) and nothing flagged (the highest score).
    """
    good, anomalies = np.sort(_finite(good, "validation")), np.sort(_finite(anomalies, "anomaly/threshold"))
    if not len(good) or not len(anomalies):
        raise NotEnoughImages("this threshold needs good images and anomalies: use the conformal one, or add anomalies")
    scores = np.unique(np.concatenate([good, anomalies]))
    middles = scores[:-1] / 2 + scores[1:] / 2
    candidates = np.concatenate([[np.nextafter(scores[0], -np.inf)], middles, [scores[-1]]])
    false_alarms = len(good) - np.searchsorted(good, candidates, side="right")
    detected = len(anomalies) - np.searchsorted(anomalies, candidates, side="right")
    merits = merit(false_alarms.astype(float), detected.astype(float), len(good), len(anomalies))
    # Costs that differ only by rounding are equal.
    close = np.flatnonzero(merits >= merits.max() - 1e-12 * max(1.0, abs(float(merits.max()))))
    return float(candidates[close[-1]])


def _finite(scores: ArrayLike, name: str) -> Scores:
    array = np.asarray(scores, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        bad = int(np.sum(~np.isfinite(array)))
        raise ValueError(
            f"{bad} of {len(array)} {name} scores are not finite numbers: the model is broken, train again"
        )
    return array
