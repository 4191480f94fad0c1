"""Confidence intervals of proportions, two-sided at 95 % by default."""

from __future__ import annotations

import math

from pipelines.steps import Estimate

CONFIDENCE = 0.95


def clopper_pearson(hits: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return `hits / trials` with its exact interval, whose coverage is at least `confidence` (default 0.95).

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934), in its Beta quantile form.

    Raises:
        ValueError: unless `0 <= hits <= trials` and `trials > 0`.
    """
    _check_counts(hits, trials)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, trials - hits + 1)
    high = 1.0 if hits == trials else beta_quantile(1 - tail, hits + 1, trials - hits)
    return Estimate(hits / trials, low, high)


def wilson(hits: float, trials: float, confidence: float = CONFIDENCE) -> Estimate:
    """Return `hits / trials` with Wilson's score interval, which is well behaved near 0 and 1.

    `hits` may be fractional, for an area treated as a proportion. Source: Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22 (1927).

    Raises:
        ValueError: unless `0 <= hits <= trials` and `trials > 0`.
    """
    _check_counts(hits, trials)
    rate, z = hits / trials, normal_quantile(0.5 + confidence / 2)
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Estimate(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the quantile of the Beta(a, b) distribution at `probability`."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution at `probability`."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def _check_counts(hits: float, trials: float) -> None:
    if trials <= 0 or not 0 <= hits <= trials:
        raise ValueError(f"a proportion needs 0 <= hits <= trials and trials > 0, not {hits} of {trials}")
