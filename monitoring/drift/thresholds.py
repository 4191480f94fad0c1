"""Methods and thresholds of drift detection, and the robust scaling that makes one threshold fit every column.

Each column is standardised by the reference: (value - median) / spread, where spread is the interquartile range / 1.349
(the standard deviation of a normal distribution), clipped at ±CLIP. A threshold therefore means the same for every
column, and the few defects that every line has do not count as drift. Drift of a column is Evidently's normalized
Wasserstein distance: by how many standard deviations of the reference the distribution has moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MINIMUM_REFERENCE = 20  # images; with fewer, the estimate of the spread is unreliable
CLIP = 4.0  # reference standard deviations
JITTER = 0.01  # reference standard deviations, added to embeddings
METHOD = "wasserstein"  # Evidently: "Wasserstein distance (normed)"
LEAST_DISTANCE = 0.5  # reference standard deviations; half of one is a medium effect (Cohen 1988)
SAMPLING = 3.5  # times sqrt(1/n + 1/m): 99.9 % quantile of the distance between samples of one distribution, simulated
CONSTANT_METHOD = "hellinger"  # for a column that never varied in the reference
CONSTANT_DISTANCE = 0.225  # Hellinger distance when one image in ten differs: sqrt(1 - sqrt(0.9))
DESCRIPTOR_SHARE = 0.2  # of the compared descriptors
EMBEDDING_SHARE = 0.2  # of the compared components
CLASS_DISTANCE = 0.2  # total variation distance: one prediction in five is of another class
UNSURE_INCREASE = 0.1  # of the share of unsure predictions
NOISE_POINT = 0.999  # quantile of the sampling noise of shares; the same level as SAMPLING
_NOISE_DRAWS = 10_000
PROMISE_POINT = 0.999  # quantile of the number of false alarms; the same level as SAMPLING
USABLE_SHARE = 0.5  # of a column's values that must be finite


def distance_threshold(reference_n: int, current_n: int) -> float:
    """Return the distance from which a column counts as drifted, in reference standard deviations.

    It is LEAST_DISTANCE, or the sampling noise of samples of these sizes if that is larger.
    """
    return max(LEAST_DISTANCE, SAMPLING * float(np.sqrt(1 / reference_n + 1 / current_n)))


def class_threshold(reference_counts: NDArray[np.int64], current_counts: NDArray[np.int64]) -> float:
    """Return the total variation distance from which predicted classes, counts [k] and [k], count as drifted.

    It is CLASS_DISTANCE, or the sampling noise of samples of these sizes from their common distribution if that is
    larger, simulated.
    """
    n, m = int(reference_counts.sum()), int(current_counts.sum())
    common = (reference_counts + current_counts) / (n + m)
    generator = np.random.default_rng(0)
    first, second = (generator.multinomial(size, common, _NOISE_DRAWS) / size for size in (n, m))
    noise = np.abs(first - second).sum(axis=1) / 2
    return max(CLASS_DISTANCE, float(np.quantile(noise, NOISE_POINT)))


def unsure_threshold(reference_share: float, reference_n: int, current_share: float, current_n: int) -> float:
    """Return the increase from which the share of unsure predictions counts as drifted.

    It is UNSURE_INCREASE, or the sampling noise of two shares of these sizes (normal approximation) if that is larger.
    """
    common = (reference_share * reference_n + current_share * current_n) / (reference_n + current_n)
    noise = NormalDist().inv_cdf(NOISE_POINT) * float(
        np.sqrt(common * (1 - common) * (1 / reference_n + 1 / current_n))
    )
    return max(UNSURE_INCREASE, noise)


@dataclass(frozen=True)
class Scaled:
    """One standardised column, without NaN.

    Attributes:
        reference: float64 [n], in reference standard deviations.
        current: float64 [m], in reference standard deviations.
        spread: one reference standard deviation in the column's own unit; 0 for a constant.
    """

    reference: NDArray[np.float64]
    current: NDArray[np.float64]
    spread: float


@dataclass(frozen=True)
class Unusable:
    """A column that cannot be compared.

    Attributes:
        why: the reason, in words.
    """

    why: str


def scale(reference: NDArray[np.float64], current: NDArray[np.float64]) -> Scaled | Unusable:
    """Standardise one column, `reference` [n] and `current` [m], by the reference's median and spread.

    A column that is constant in the reference but not in current is returned with `spread` 0 and values 0 (the
    constant) and 1 (anything else).
    """
    usable = []
    for name, values in (("reference", reference), ("current", current)):
        finite = values[np.isfinite(values)]
        if len(finite) < max(1, USABLE_SHARE * len(values)):
            return Unusable(f"only {len(finite)} of {len(values)} {name} images have a value")
        usable.append(finite)
    reference_finite, current_finite = usable
    centre = float(np.median(reference_finite))
    low, high = np.quantile(reference_finite, [0.25, 0.75])
    spread = float(high - low) / 1.349 or float(np.std(reference_finite))
    # A spread below the floating-point resolution of the values is none.
    if spread <= 1e-9 * max(1.0, abs(centre)):
        differs = ~np.isclose(current_finite, centre, rtol=1e-9, atol=1e-12)
        if not differs.any():
            return Unusable(f"always {centre:g}")
        return Scaled(np.zeros(len(reference_finite)), differs.astype(np.float64), 0.0)
    return Scaled(_clipped(reference_finite, centre, spread), _clipped(current_finite, centre, spread), spread)


def scale_embedding(
    reference: NDArray[np.floating], current: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardise finite embeddings, `reference` [n, d] and `current` [m, d], component by component.

    Returns:
        float64 [n, k] and [m, k], k <= d: components that are constant in the reference (units of the network that
        never fire) are left out.
    """
    reference_values, current_values = reference.astype(np.float64), current.astype(np.float64)
    centre = np.median(reference_values, axis=0)
    low, high = np.quantile(reference_values, [0.25, 0.75], axis=0)
    spread = (high - low) / 1.349
    spread = np.where(spread > 0, spread, reference_values.std(axis=0))
    varying = spread > 1e-6 * np.maximum(1e-3, np.abs(centre))  # the resolution of float32
    generator = np.random.default_rng(0)

    def standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
        clipped = _clipped(values[:, varying], centre[varying], spread[varying])
        # Without noise, identical images (a stuck camera, all values clipped) break Evidently's density plot.
        return clipped + generator.normal(0, JITTER, clipped.shape)

    return standardise(reference_values), standardise(current_values)


def _clipped(values: NDArray[np.float64], centre: object, spread: object) -> NDArray[np.float64]:
    return np.asarray(np.clip((values - centre) / spread, -CLIP, CLIP), dtype=np.float64)  # type: ignore[operator]


def describe_method(
    reference_n: int,
    current_n: int,
    most_false_alarms: int | None,
    class_distance: float | None = None,
    unsure_increase: float | None = None,
) -> list[str]:
    """Return the method and its thresholds in words, one sentence per item, for reports and mails.

    Args:
        reference_n: number of images in the reference.
        current_n: number of images in the current window.
        most_false_alarms: the PROMISE_POINT quantile of their number; None if false alarms are not counted.
        class_distance: the threshold of predicted classes; None (default) of a model without classes.
        unsure_increase: the threshold of the share of unsure predictions; None (default) of a model without classes.
    """
    distance = distance_threshold(reference_n, current_n)
    noise = f"{SAMPLING:g} × √(1/{reference_n} + 1/{current_n})"
    rules = [
        "Score and descriptors: normalized Wasserstein distance by Evidently, in standard deviations of the reference, "
        f"values clipped at {CLIP:g}; drifted from {distance:.2f}, the larger of {LEAST_DISTANCE:g} and {noise}.",
        f"Embedding: the share of its components that moved that much; drifted above {EMBEDDING_SHARE:.0%}.",
        f"A descriptor that never varied in the reference: Hellinger distance; drifted from {CONSTANT_DISTANCE:g}, "
        "which is one image in ten.",
    ]
    compared = ["the score"]
    also = ""
    if class_distance is not None:
        compared.append("the predicted classes")
        rules.append(
            "Predicted classes: total variation distance of their shares; drifted from "
            f"{class_distance:.2f}, the larger of {CLASS_DISTANCE:g} and the {NOISE_POINT:.1%} point of sampling noise."
        )
    if unsure_increase is not None:
        compared.append("the share of unsure predictions")
        rules.append(
            "Unsure predictions, whose conformal set holds more than one class: drifted if their share grows by "
            f"{unsure_increase:.0%} of all or more, the larger of {UNSURE_INCREASE:.0%} and the {NOISE_POINT:.1%} "
            "point of sampling noise."
        )
    if most_false_alarms is not None:
        also = ", or if more false alarms are known than chance alone gives"
        rules.append(
            "False alarms: images called anomalous that people found to be good, without those that the threshold was "
            "set on; the promise allows for the 97.5 % point of their number (beta-binomial), chance alone for its "
            f"{PROMISE_POINT:.1%} point, {most_false_alarms}."
        )
    return [
        *rules,
        f"It is drift if {', '.join(compared)}, the embedding, or at least {DESCRIPTOR_SHARE:.0%} of the descriptors "
        f"drifted{also}.",
    ]
