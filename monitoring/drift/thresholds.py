"""The fixed ruler that drift is measured with: methods, thresholds, and how columns are put on one scale.

A column is expressed in the reference's own spread: (value - median) / spread, where spread is the interquartile range
/ 1.349 (a standard deviation, for a normal distribution), and clipped at +-CLIP. So a threshold means the same for
every column, and a handful of defects, which any line has, cannot pass for drift. Its drift is Evidently's normalized
Wasserstein distance: by how many standard deviations of the reference the distribution has to be moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MINIMUM_REFERENCE = 20  # images; below that the reference's spread is a guess
CLIP = 4.0  # reference standard deviations
JITTER = 0.01  # reference standard deviations, added to embeddings
METHOD = "wasserstein"  # Evidently: "Wasserstein distance (normed)"
LEAST_DISTANCE = 0.5  # reference standard deviations; half of one is a medium effect (Cohen 1988)
SAMPLING = 3.5  # times sqrt(1/n + 1/m): simulated 99.9 % point of the distance between samples that do not differ
CONSTANT_METHOD = "hellinger"  # for a column that never varied in the reference
CONSTANT_DISTANCE = 0.225  # Hellinger distance when one image in ten differs: sqrt(1 - sqrt(0.9))
DESCRIPTOR_SHARE = 0.2  # of the compared descriptors
EMBEDDING_SHARE = 0.2  # of the compared components
PROMISE_POINT = 0.999  # of the number of false alarms: as rare, by chance, as what SAMPLING allows for
USABLE_SHARE = 0.5  # of a column's values that must be finite


def distance_threshold(reference_n: int, current_n: int) -> float:
    """Return the distance from which a column has drifted, in reference standard deviations.

    LEAST_DISTANCE, but never less than what chance alone gives to samples of these sizes.
    """
    return max(LEAST_DISTANCE, SAMPLING * float(np.sqrt(1 / reference_n + 1 / current_n)))


@dataclass(frozen=True)
class Scaled:
    """One column on the ruler; `reference` [n] and `current` [m] in reference standard deviations, without NaN."""

    reference: NDArray[np.float64]
    current: NDArray[np.float64]
    spread: float  # one reference standard deviation in the column's own unit; 0 for a constant


@dataclass(frozen=True)
class Unusable:
    """Why a column cannot be compared."""

    why: str


def scale(reference: NDArray[np.float64], current: NDArray[np.float64]) -> Scaled | Unusable:
    """Put one column, reference [n] and current [m], on the ruler.

    A column that is constant in the reference but not in current comes back with `spread` 0 and as 0 (the constant)
    and 1 (anything else).
    """
    usable = []
    for name, values in (("reference", reference), ("current", current)):
        finite = values[np.isfinite(values)]
        if len(finite) < max(1, USABLE_SHARE * len(values)):
            return Unusable(f"only {len(finite)} of {len(values)} {name} images have a value")
        usable.append(finite)
    known, seen = usable
    centre = float(np.median(known))
    low, high = np.quantile(known, [0.25, 0.75])
    spread = float(high - low) / 1.349 or float(np.std(known))
    # Below the resolution of the numbers themselves there is no spread to measure in.
    if spread <= 1e-9 * max(1.0, abs(centre)):
        differs = ~np.isclose(seen, centre, rtol=1e-9, atol=1e-12)
        if not differs.any():
            return Unusable(f"always {centre:g}")
        return Scaled(np.zeros(len(known)), differs.astype(np.float64), 0.0)
    return Scaled(_clipped(known, centre, spread), _clipped(seen, centre, spread), spread)


def scale_embedding(
    reference: NDArray[np.floating], current: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Put finite embeddings, reference [n, d] and current [m, d], on the ruler, component by component.

    Returns [n, k] and [m, k], k <= d: components that are constant in the reference (a unit of the network that never
    fires) are left out.
    """
    known, seen = reference.astype(np.float64), current.astype(np.float64)
    centre = np.median(known, axis=0)
    low, high = np.quantile(known, [0.25, 0.75], axis=0)
    spread = (high - low) / 1.349
    spread = np.where(spread > 0, spread, known.std(axis=0))
    alive = spread > 1e-6 * np.maximum(1e-3, np.abs(centre))  # float32 holds no finer differences
    generator = np.random.default_rng(0)

    def put(values: NDArray[np.float64]) -> NDArray[np.float64]:
        clipped = _clipped(values[:, alive], centre[alive], spread[alive])
        # Images that are all alike (a stuck camera, everything clipped) would break Evidently's picture of densities.
        return clipped + generator.normal(0, JITTER, clipped.shape)

    return put(known), put(seen)


def _clipped(values: NDArray[np.float64], centre: object, spread: object) -> NDArray[np.float64]:
    return np.asarray(np.clip((values - centre) / spread, -CLIP, CLIP), dtype=np.float64)  # type: ignore[operator]


def stated(reference_n: int, current_n: int, most_false_alarms: int | None) -> list[str]:
    """Return the method and its thresholds in words, one sentence an item, for reports and mails.

    `most_false_alarms` is how many chance alone gives, None where they are not counted.
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
    also = ""
    if most_false_alarms is not None:
        also = ", or if more false alarms are known than chance alone gives"
        rules.append(
            "False alarms: images called anomalous that people found to be good, without those that the threshold was "
            "set on; the promise allows for the 97.5 % point of their number (beta-binomial), chance alone for its "
            f"{PROMISE_POINT:.1%} point, {most_false_alarms}."
        )
    return [
        *rules,
        f"It is drift if the score, the embedding, or at least {DESCRIPTOR_SHARE:.0%} of the descriptors "
        f"drifted{also}.",
    ]
