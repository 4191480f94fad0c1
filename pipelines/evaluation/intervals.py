"""Confidence intervals of proportions.

All intervals are two-sided at 95 % unless told otherwise.
"""

from __future__ import annotations

import math

from pipelines.steps import Estimate

CONFIDENCE = 0.95


def clopper_pearson(hits: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return `hits / trials` with its exact interval, which covers the true rate at least as often as stated.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934), in its Beta quantile form. Raises ValueError unless `0 <= hits <= trials` and `trials > 0`.
    """
    _check_counts(hits, trials)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, trials - hits + 1)
    high = 1.0 if hits == trials else beta_quantile(1 - tail, hits + 1, trials - hits)
    return Estimate(hits / trials, low, high)


def wilson(hits: float, trials: float, confidence: float = CONFIDENCE) -> Estimate:
    """Return `hits / trials` with Wilson's score interval, which stays sensible at 0 and at 1.

    `hits` may be a fraction (an area treated as a proportion). Source: Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22 (1927). Raises ValueError as `clopper_pearson` does.
    """
    _check_counts(hits, trials)
    rate, z = hits / trials, normal_quantile(0.5 + confidence / 2)
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Estimate(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the value below which a Beta(a, b) variable lies with the given probability."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))


def normal_quantile(probability: float) -> float:
    """Return the value below which a standard normal variable lies with the given probability."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def _check_counts(hits: float, trials: float) -> None:
    if trials <= 0 or not 0 <= hits <= trials:
        raise ValueError(f"a proportion needs 0 <= hits <= trials and trials > 0, not {hits} of {trials}")
