"""Image-level metrics of a model, each with its 95 % confidence interval.

`good` and `anomalies` are anomaly scores of the test subsets; higher is more anomalous. The intervals keep their
coverage at the extremes: a perfect metric from few images has a wide interval rather than one of zero width.
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
# Below this value of n p (1 - p), the normal approximation on the logit scale is too poor.
LEAST_SPREAD = 5


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix at a threshold; anomalies are the positive class.

    Attributes:
        true_positive: anomalies called anomalous.
        false_negative: anomalies called good.
        false_positive: good images called anomalous.
        true_negative: good images called good.
    """

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int

    @classmethod
    def at(cls, threshold: float, good: ArrayLike, anomalies: ArrayLike) -> Confusion:
        """Count the verdicts: an image is called anomalous if its score is above the threshold."""
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
    """Return the area under the ROC curve: the probability that an anomaly scores above a good image, ties count half.

    The interval is the union of two: DeLong's (DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988)) on the logit
    scale (Pepe, *The Statistical Evaluation of Medical Tests*, 2003, section 5.2), and Newcombe's method 5 (Statistics
    in Medicine 25 (2006)). With few anomalies, DeLong's alone is too narrow near 1 (12 anomalies at AUROC 0.98: 80 %
    coverage in simulation, and zero width at perfect separation), and Newcombe's alone is where anomalies vary more
    than good images. Together they cover the true value in at least 93 % of all simulated cases.

    Raises:
        ValueError: either side is empty.
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
    """Return AUROC and its variance from DeLong's placement values; a side with a single image adds no variance."""
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
    under the precision-recall curve", ECML 2013) with the number of anomalies n as the number of trials. Where
    n AP (1 - AP) is below 5, that interval would span almost [0, 1], and Wilson's interval with n trials is used.

    Raises:
        ValueError: either side is empty.
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
    """Return the share of anomalies detected, with the Clopper-Pearson interval."""
    return clopper_pearson(verdicts.true_positive, verdicts.anomalies)


def false_positive_rate(verdicts: Confusion) -> Estimate:
    """Return the share of good images called anomalous, with the Clopper-Pearson interval."""
    return clopper_pearson(verdicts.false_positive, verdicts.good)


def precision(verdicts: Confusion) -> Estimate | None:
    """Return the share of alarms that are anomalies at the test set's class balance, with Wilson's interval.

    None without an alarm.
    """
    alarms = verdicts.true_positive + verdicts.false_positive
    return wilson(verdicts.true_positive, alarms) if alarms else None


def f1(verdicts: Confusion, seed: int = 0) -> Estimate:
    """Return F1 at the test set's class balance.

    The interval is computed by sampling recall and false-positive rate from their Jeffreys posteriors, as in Goutte and
    Gaussier, "A probabilistic interpretation of precision, recall and F-score" (ECIR 2005), with the numbers of good
    and anomalous images fixed.

    Raises:
        ValueError: there are no anomalies.
    """
    if not verdicts.anomalies:
        raise ValueError("F1 needs anomalies")
    detected, alarms = _jeffreys(verdicts, seed)
    draws = 2 * detected / (detected + alarms + verdicts.anomalies)
    value = 2 * verdicts.true_positive / (verdicts.true_positive + verdicts.false_positive + verdicts.anomalies)
    return _between(value, draws)


def precision_on_line(verdicts: Confusion, defect_rate: float, seed: int = 0) -> Estimate | None:
    """Return the precision expected at the line's defect rate; None without an alarm.

    A test set has a far higher share of anomalies than a line. With defect rate p, the expected precision is
    p recall / (p recall + (1 - p) FPR). The interval is sampled as in `f1`.
    """
    if not verdicts.anomalies or not verdicts.good or not verdicts.true_positive + verdicts.false_positive:
        return None
    detected, alarms = _jeffreys(verdicts, seed)

    def share(hits: Any, false: Any) -> Any:
        real = defect_rate * hits / verdicts.anomalies
        return real / (real + (1 - defect_rate) * false / verdicts.good)

    return _between(float(share(verdicts.true_positive, verdicts.false_positive)), share(detected, alarms))


def mean(values: ArrayLike) -> Estimate:
    """Return the mean with Student's t interval; for a single value the interval has zero width.

    Raises:
        ValueError: there are no values.
    """
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
    """Return for each anomaly type its number of images (`n`), of detected ones (`found`), and recall with interval."""
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
    """Sample the numbers of detected anomalies and of false alarms from the posteriors of their rates."""
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
