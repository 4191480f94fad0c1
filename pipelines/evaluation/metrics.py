"""Image-level figures of a model, each with its 95 % confidence interval.

`good` and `anomalies` are anomaly scores of the test subsets, larger is more anomalous. Intervals are chosen to stay
honest at the edge: a perfect figure from few images has a wide interval, not one of width nought.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.evaluation.intervals import CONFIDENCE, clopper_pearson, normal_quantile, wilson
from pipelines.steps import Estimate

DRAWS = 20_000
# Below it, a count is too far from normal for an interval on the logit scale.
LEAST_SPREAD = 5


@dataclass(frozen=True)
class Confusion:
    """Counts of the verdicts at a threshold; an anomaly found is a true positive."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int

    @classmethod
    def at(cls, threshold: float, good: ArrayLike, anomalies: ArrayLike) -> Confusion:
        """Count verdicts: an image is called anomalous when its score is above the threshold."""
        good, anomalies = np.asarray(good), np.asarray(anomalies)
        detected, alarms = int(np.sum(anomalies > threshold)), int(np.sum(good > threshold))
        return cls(detected, len(anomalies) - detected, alarms, len(good) - alarms)

    @property
    def anomalies(self) -> int:
        return self.true_positive + self.false_negative

    @property
    def good(self) -> int:
        return self.false_positive + self.true_negative


def auroc(good: ArrayLike, anomalies: ArrayLike) -> Estimate:
    """Return the area under the ROC curve: the chance that an anomaly scores above a good image, ties counting half.

    The interval spans two: DeLong's (DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988)) on the logit scale
    (Pepe, *The Statistical Evaluation of Medical Tests*, 2003, section 5.2), and Newcombe's method 5 (Statistics in
    Medicine 25 (2006)). With the few anomalies of an inspection line DeLong's alone is too narrow near 1 (12 anomalies
    at AUROC 0.98: it covers the truth in 80 % of simulated test sets, and with perfect separation its width is
    nought), Newcombe's alone where anomalies vary more than good images do; together they cover it in 93 % or more of
    all cases tried.
    Raises ValueError if either side is empty.
    """
    good, anomalies = _sides(good, anomalies)
    area, variance = delong(good, anomalies)
    steady = _newcombe(area, len(good), len(anomalies))
    if variance <= 0 or not 0 < area < 1:
        return steady
    half = normal_quantile(0.5 + CONFIDENCE / 2) * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    return Estimate(area, min(steady.low, _expit(logit - half)), max(steady.high, _expit(logit + half)))


def delong(good: ArrayLike, anomalies: ArrayLike) -> tuple[float, float]:
    """Return AUROC and its variance by DeLong's placement values; the variance is 0 with a single image on a side."""
    good, anomalies = _sides(good, anomalies)
    above, of_good = placements(good, anomalies)
    variance = sum(float(np.var(values, ddof=1)) / len(values) for values in (above, of_good) if len(values) > 1)
    return float(above.mean()), variance


def placements(good: NDArray[np.float64], anomalies: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return for each anomaly the share of good images below it, and for each good image that of anomalies above it."""
    return _share_below(good, anomalies), 1 - _share_below(anomalies, good)


def average_precision(good: ArrayLike, anomalies: ArrayLike) -> Estimate:
    """Return average precision, the sum over thresholds of (recall gained) x precision, without interpolation.

    Depends on the share of anomalies among the test images. The interval is Boyd, Eng and Page's logit interval ("Area
    under the precision-recall curve", ECML 2013), which takes the number of anomalies n for the number of trials;
    where n AP (1 - AP) is below 5, and that interval would span nearly everything, it is Wilson's interval of as many.
    Raises ValueError if either is empty.
    """
    good, anomalies = _sides(good, anomalies)
    scores = np.concatenate([good, anomalies])
    is_anomaly = np.concatenate([np.zeros(len(good)), np.ones(len(anomalies))])
    order = np.argsort(-scores, kind="stable")
    scores, is_anomaly = scores[order], is_anomaly[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    detected = np.cumsum(is_anomaly)[last_of_ties]
    precision, gained = detected / (last_of_ties + 1), np.diff(detected, prepend=0) / len(anomalies)
    area = min(1.0, float(np.sum(gained * precision)))
    spread = len(anomalies) * area * (1 - area)
    if spread < LEAST_SPREAD:
        return wilson(area * len(anomalies), len(anomalies))
    half = normal_quantile(0.5 + CONFIDENCE / 2) / math.sqrt(spread)
    logit = math.log(area / (1 - area))
    return Estimate(area, _expit(logit - half), _expit(logit + half))


def recall(verdicts: Confusion) -> Estimate:
    """Return the share of anomalies found, with the Clopper-Pearson interval."""
    return clopper_pearson(verdicts.true_positive, verdicts.anomalies)


def false_positive_rate(verdicts: Confusion) -> Estimate:
    """Return the share of good images called anomalous, with the Clopper-Pearson interval."""
    return clopper_pearson(verdicts.false_positive, verdicts.good)


def precision(verdicts: Confusion) -> Estimate | None:
    """Return the share of alarms that are anomalies at the test mix, with Wilson's interval; None without an alarm."""
    alarms = verdicts.true_positive + verdicts.false_positive
    return wilson(verdicts.true_positive, alarms) if alarms else None


def f1(verdicts: Confusion, seed: int = 0) -> Estimate:
    """Return F1 at the test mix.

    The interval is that of F1 when recall and false-positive rate are drawn from their Jeffreys posteriors, as in
    Goutte and Gaussier, "A probabilistic interpretation of precision, recall and F-score" (ECIR 2005), with the numbers
    of good and anomalous images held fixed. Raises ValueError without anomalies.
    """
    if not verdicts.anomalies:
        raise ValueError("F1 needs anomalies")
    detected, alarms = _jeffreys(verdicts, seed)
    draws = 2 * detected / (detected + alarms + verdicts.anomalies)
    value = 2 * verdicts.true_positive / (verdicts.true_positive + verdicts.false_positive + verdicts.anomalies)
    return _between(value, draws)


def precision_on_line(verdicts: Confusion, defect_rate: float, seed: int = 0) -> Estimate | None:
    """Return the share of alarms to expect to be real at the line's defect rate; None without an alarm.

    A test set has far more anomalies than a line: this is p recall / (p recall + (1 - p) FPR), with its interval drawn
    as that of `f1`.
    """
    if not verdicts.anomalies or not verdicts.good or not verdicts.true_positive + verdicts.false_positive:
        return None
    detected, alarms = _jeffreys(verdicts, seed)

    def share(hits: Any, false: Any) -> Any:
        real = defect_rate * hits / verdicts.anomalies
        return real / (real + (1 - defect_rate) * false / verdicts.good)

    return _between(float(share(verdicts.true_positive, verdicts.false_positive)), share(detected, alarms))


def mean(values: ArrayLike) -> Estimate:
    """Return the mean with Student's t interval; of a single value the interval is that value. Raises if empty."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise ValueError("a mean needs at least one value")
    centre = float(array.mean())
    if len(array) == 1:
        return Estimate(centre, centre, centre)
    from scipy.special import stdtrit

    half = float(stdtrit(len(array) - 1, 0.5 + CONFIDENCE / 2)) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Estimate(centre, centre - half, centre + half)


def recall_by_type(threshold: float, anomalies: ArrayLike, types: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return for each anomaly type how many there are, how many are found and the recall with its interval."""
    scores, names = np.asarray(anomalies), np.asarray(types, dtype=object)
    rows = {}
    for name in sorted(set(types)):
        chosen = scores[names == name]
        detected = int(np.sum(chosen > threshold))
        rows[name] = {"n": len(chosen), "found": detected, **clopper_pearson(detected, len(chosen)).to_json()}
    return rows


def _share_below(of: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(of)
    below, upto = np.searchsorted(ordered, at, side="left"), np.searchsorted(ordered, at, side="right")
    return (below + upto) / (2 * len(of))


def _newcombe(area: float, n_good: int, n_anomalies: int) -> Estimate:
    """Return the bounds t where |t - area| = z sqrt(V(t)), by bisection.

    V(t) = t (1 - t) (1 + (N - 1) ((1 - t) / (2 - t) + t / (1 + t))) / (n m), N = (n + m) / 2.
    """
    z, half = normal_quantile(0.5 + CONFIDENCE / 2), (n_good + n_anomalies) / 2

    def outside(t: float) -> bool:
        spread = 1 + (half - 1) * ((1 - t) / (2 - t) + t / (1 + t))
        return (t - area) ** 2 > z * z * t * (1 - t) * spread / (n_good * n_anomalies)

    def bound(far: float) -> float:
        near = area
        for _ in range(60):
            middle = (near + far) / 2
            near, far = (near, middle) if outside(middle) else (middle, far)
        return far

    return Estimate(area, bound(0.0) if area > 0 else 0.0, bound(1.0) if area < 1 else 1.0)


def _jeffreys(verdicts: Confusion, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw numbers of anomalies found and of false alarms from the posteriors of their rates."""
    rng = np.random.default_rng(seed)
    detected = rng.beta(verdicts.true_positive + 0.5, verdicts.false_negative + 0.5, DRAWS) * verdicts.anomalies
    alarms = rng.beta(verdicts.false_positive + 0.5, verdicts.true_negative + 0.5, DRAWS) * verdicts.good
    return detected, alarms


def _between(value: float, draws: NDArray[np.float64]) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _sides(good: ArrayLike, anomalies: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sides = np.asarray(good, dtype=np.float64).ravel(), np.asarray(anomalies, dtype=np.float64).ravel()
    if not all(len(side) for side in sides):
        raise ValueError(f"needs both good images and anomalies, not {len(sides[0])} and {len(sides[1])}")
    return sides
