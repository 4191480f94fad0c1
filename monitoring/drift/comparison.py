"""What a comparison of the current window with the reference takes and finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from monitoring.drift import thresholds
from pipelines.config.metrics import percent
from pipelines.evaluation.intervals import clopper_pearson
from pipelines.steps import Estimate
from pipelines.tasks.anomaly.threshold import most_alarms

SCORE = "anomaly score"


@dataclass(frozen=True)
class Observed:
    """The model's output and the descriptors of a set of n images.

    Attributes:
        score: what drift follows of each image [n]: the anomaly score, or the certainty of the class.
        embedding: embeddings [n, d].
        descriptors: descriptors [n, k]; NaN where unknown.
        descriptor_names: the k names.
        score_name: what the score is. Default: `anomaly score`.
        classes: predicted classes [n]; None of a model without classes.
        unsure: whether the conformal set holds more than one class, bool [n]; None of a model without classes.
    """

    score: NDArray[np.floating]
    embedding: NDArray[np.floating]
    descriptors: NDArray[np.floating]
    descriptor_names: tuple[str, ...]
    score_name: str = SCORE
    classes: NDArray[np.str_] | None = None
    unsure: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def embedded(self) -> Observed:
        """Return the images with a finite embedding: all of them, unless the model is broken."""
        good = np.isfinite(self.embedding).all(axis=1)
        return replace(
            self,
            score=self.score[good],
            embedding=self.embedding[good],
            descriptors=self.descriptors[good],
            classes=None if self.classes is None else self.classes[good],
            unsure=None if self.unsure is None else self.unsure[good],
        )


@dataclass(frozen=True)
class Column:
    """The drift of one column.

    Attributes:
        name: the name of the score or of a descriptor.
        method: Evidently's name of the distance.
        distance: distance between current and reference, in the unit of `method`.
        threshold: the distance from which the column has drifted.
        drifted: whether it has.
        reference_median: median of the reference, in the column's own unit.
        current_median: median of the current window, in the column's own unit.
        shift: difference of the medians in reference standard deviations; None for a constant reference.
    """

    name: str
    method: str
    distance: float
    threshold: float
    drifted: bool
    reference_median: float
    current_median: float
    shift: float | None


@dataclass(frozen=True)
class Embedding:
    """The drift of the embedding.

    Attributes:
        components: number of compared components.
        share: share of them that drifted, 0..1.
        threshold: the share above which the embedding has drifted.
        drifted: whether it has.
    """

    components: int
    share: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class FalseAlarms:
    """Whether the promised false-positive rate holds, as far as people annotated the alarms.

    Not every image is reviewed, so the number of false alarms is a lower bound.

    Attributes:
        images: number of images in the window.
        found: number of images that were called anomalous and are annotated as good.
        allowed: 97.5 % quantile of their number if the promise holds.
        limit: 99.9 % quantile of it.
        promised: the promised false-positive rate, 0..1.
        broken: whether more than `allowed` were found.
        drifted: whether more than `limit` were found, which counts as drift.
    """

    images: int
    found: int
    allowed: int
    limit: int
    promised: float
    broken: bool
    drifted: bool

    @classmethod
    def of(cls, count: int, images: int, promised: float, n: int, rank: int) -> Self:
        """Test the promise of a threshold that is at least the `rank`-th smallest of `n` validation scores.

        `count` of `images` images are known false alarms.
        """
        allowed = most_alarms(n, rank, images)
        limit = most_alarms(n, rank, images, thresholds.PROMISE_POINT)
        return cls(images, count, allowed, limit, promised, count > allowed, count > limit)

    def reason(self) -> str:
        """Return in words by how much the promise is broken."""
        return (
            f"{self.found} of {self.images} images are called anomalous and known to be good: the promised "
            f"false-positive rate of {percent(self.promised)} allows for at most {self.allowed}"
        )


@dataclass(frozen=True)
class ClassShare:
    """The share of one class among the predictions, 0..1, in the reference and now."""

    name: str
    reference: float
    current: float


@dataclass(frozen=True)
class ClassShift:
    """The drift of the distribution of predicted classes.

    Attributes:
        distance: total variation distance, 0..1: the share of images that would have to be of another class.
        threshold: the distance from which the distribution has drifted.
        drifted: whether it has.
        moved: the classes whose share changed most, largest change first.
    """

    distance: float
    threshold: float
    drifted: bool
    moved: list[ClassShare]

    def reason(self) -> str:
        """Return in words how the distribution moved."""
        most = ", ".join(f"{one.name} {one.reference:.0%} → {one.current:.0%}" for one in self.moved[:3])
        return f"the predicted classes drifted: {most}"


@dataclass(frozen=True)
class UnsureShift:
    """The drift of the share of images whose conformal set holds more than one class.

    Attributes:
        reference: the share in the reference, 0..1.
        current: the share now.
        threshold: the increase from which it has drifted.
        drifted: whether it has.
    """

    reference: float
    current: float
    threshold: float
    drifted: bool

    def reason(self) -> str:
        """Return in words by how much the share grew."""
        return f"{self.current:.0%} of the predictions are unsure, {self.reference:.0%} of the reference"


@dataclass(frozen=True)
class Confirmed:
    """How often a version was right, by the predictions that people confirmed or corrected.

    People correct more readily than they confirm, so this is no estimate for all images, and never drift by itself.

    Attributes:
        images: number of images that people judged.
        right: number of these that they confirmed.
        accuracy: right / images, with its exact 95 % interval.
        minimum: the project's minimum of accuracy.
        below: whether the whole interval is below it.
    """

    images: int
    right: int
    accuracy: Estimate
    minimum: float
    below: bool

    @classmethod
    def of(cls, right: int, images: int, minimum: float) -> Self:
        """Judge `right` of `images` predictions, at least one."""
        accuracy = clopper_pearson(right, images)
        return cls(images, right, accuracy, minimum, accuracy.high < minimum)

    def reason(self) -> str:
        """Return in words how far below the minimum it is."""
        return (
            f"people found {self.right} of {self.images} predictions right ({percent(self.accuracy.value)}, 95 % "
            f"interval {percent(self.accuracy.low)} to {percent(self.accuracy.high)}), below the project's minimum of "
            f"{percent(self.minimum)}"
        )


@dataclass(frozen=True)
class Comparison:
    """The result of comparing the current window with the reference.

    Attributes:
        drifted: whether it is drift.
        reasons: why it is drift; without drift, what people should know nevertheless.
        score: drift of the score; None if it could not be compared.
        descriptors: drift of each compared descriptor.
        embedding: drift of the embedding; None if it could not be compared.
        left_out: why each column that is missing above could not be compared, by name.
        stated: the method and its thresholds in words, one sentence per item.
        false_alarms: None if the threshold promises no false-positive rate.
        classes: drift of the predicted classes; None of a model without classes.
        unsure: drift of the share of unsure predictions; None of a model without classes.
    """

    drifted: bool
    reasons: list[str]
    score: Column | None
    descriptors: list[Column]
    embedding: Embedding | None
    left_out: dict[str, str]
    stated: list[str]
    false_alarms: FalseAlarms | None
    classes: ClassShift | None = None
    unsure: UnsureShift | None = None

    @property
    def descriptor_share(self) -> float:
        """The share of the compared descriptors that drifted, 0..1."""
        return sum(column.drifted for column in self.descriptors) / len(self.descriptors) if self.descriptors else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as numbers, strings, lists and dictionaries."""
        return asdict(self) | {"descriptor_share": self.descriptor_share}
