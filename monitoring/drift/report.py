"""Compares the current window with the champion's reference by Evidently, and renders the HTML report.

Methods and thresholds are those of `monitoring.drift.thresholds`, never Evidently's defaults, which change with the
number of rows and flag columns that did not drift. Evidently takes seconds to import and is imported inside functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from monitoring.drift import thresholds
from pipelines.config.metrics import percent
from pipelines.tasks.anomaly.threshold import most_alarms

SCORE = "anomaly score"


@dataclass(frozen=True)
class Observed:
    """The model's output and the descriptors of a set of n images.

    Attributes:
        score: anomaly scores [n].
        embedding: embeddings [n, d].
        descriptors: descriptors [n, k]; NaN where unknown.
        descriptor_names: the k names.
    """

    score: NDArray[np.floating]
    embedding: NDArray[np.floating]
    descriptors: NDArray[np.floating]
    descriptor_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.score)

    def embedded(self) -> Observed:
        """Return the images with a finite embedding: all of them, unless the model is broken."""
        good = np.isfinite(self.embedding).all(axis=1)
        return replace(self, score=self.score[good], embedding=self.embedding[good], descriptors=self.descriptors[good])


@dataclass(frozen=True)
class Column:
    """The drift of one column.

    Attributes:
        name: `anomaly score` or the name of a descriptor.
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
class Comparison:
    """The result of comparing the current window with the reference.

    Attributes:
        drifted: whether it is drift.
        reasons: why it is drift; without drift, what people should know nevertheless.
        score: drift of the anomaly score; None if it could not be compared.
        descriptors: drift of each compared descriptor.
        embedding: drift of the embedding; None if it could not be compared.
        left_out: why each column that is missing above could not be compared, by name.
        stated: the method and its thresholds in words, one sentence per item.
        false_alarms: None if the threshold promises no false-positive rate.
    """

    drifted: bool
    reasons: list[str]
    score: Column | None
    descriptors: list[Column]
    embedding: Embedding | None
    left_out: dict[str, str]
    stated: list[str]
    false_alarms: FalseAlarms | None

    @property
    def descriptor_share(self) -> float:
        """The share of the compared descriptors that drifted, 0..1."""
        return sum(column.drifted for column in self.descriptors) / len(self.descriptors) if self.descriptors else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as numbers, strings, lists and dictionaries."""
        return asdict(self) | {"descriptor_share": self.descriptor_share}


def compare(reference: Observed, current: Observed, false_alarms: FalseAlarms | None = None) -> tuple[Comparison, str]:
    """Compare `current` with `reference`, each of at least 20 images.

    Descriptors are matched by name. More `false_alarms` than their `limit` count as drift too, because the promised
    rate holds for all images from the distribution of the reference.

    Returns:
        The comparison, and Evidently's report as HTML (about 3.8 MB).
    """
    from threadpoolctl import threadpool_limits

    # Evidently plots embeddings by t-SNE, whose spinning threads are many times slower on a busy machine.
    # scikit-learn and Evidently warn about their own code.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _compare(reference, current, false_alarms)


def _compare(reference: Observed, current: Observed, false_alarms: FalseAlarms | None) -> tuple[Comparison, str]:
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.metrics.embeddings import EmbeddingsDrift, RatioDriftMethod

    reference, current = reference.embedded(), current.embedded()
    threshold = thresholds.distance_threshold(len(reference), len(current))
    raw, left_out = _columns(reference, current)
    scaled: dict[str, thresholds.Scaled] = {}
    for name, (before, after) in raw.items():
        column = thresholds.scale(before, after)
        if isinstance(column, thresholds.Unusable):
            left_out[name] = column.why
        else:
            scaled[name] = column
    varying = [name for name, column in scaled.items() if column.spread > 0]
    constant = [name for name in scaled if name not in varying]
    metrics: list[Any] = [
        ValueDrift(
            column=name,
            method=thresholds.METHOD if name in varying else thresholds.CONSTANT_METHOD,
            threshold=threshold if name in varying else thresholds.CONSTANT_DISTANCE,
        )
        for name in scaled
    ]
    reference_embedding, current_embedding = thresholds.scale_embedding(reference.embedding, current.embedding)
    components = [f"component {index + 1}" for index in range(reference_embedding.shape[1])]
    if not components:
        left_out["embedding"] = "no component varied in the reference"
    if components:
        method = RatioDriftMethod(
            component_stattest=thresholds.METHOD,
            component_stattest_threshold=threshold,
            threshold=thresholds.EMBEDDING_SHARE,
        )
        metrics.append(EmbeddingsDrift(embeddings_name="embedding", drift_method=method))
    definition = DataDefinition(
        numerical_columns=varying,
        categorical_columns=constant,
        embeddings={"embedding": components} if components else None,
    )

    def dataset(side: str, embedding: NDArray[np.float64]) -> Any:
        frame = pd.DataFrame({name: pd.Series(getattr(column, side)) for name, column in scaled.items()})
        for name in constant:
            frame[name] = frame[name].map({0.0: "as ever", 1.0: "other"})
        if components:
            frame = pd.concat([frame, pd.DataFrame(embedding, columns=components)], axis=1)
        return Dataset.from_pandas(frame, data_definition=definition)

    snapshot = Report(metrics, include_tests=False).run(
        dataset("current", current_embedding), dataset("reference", reference_embedding)
    )
    values = [float(metric["value"]) for metric in snapshot.dict()["metrics"]]
    columns = [
        _column(name, scaled[name], raw[name], distance, threshold)
        for name, distance in zip(scaled, values, strict=False)
    ]
    embedding = None
    if components:
        share = values[-1]
        embedding = Embedding(len(components), share, thresholds.EMBEDDING_SHARE, share > thresholds.EMBEDDING_SHARE)
    method_words = thresholds.describe_method(
        len(reference), len(current), false_alarms.limit if false_alarms else None
    )
    return _conclude(columns, embedding, left_out, method_words, false_alarms), snapshot.get_html_str(as_iframe=False)


def _columns(
    reference: Observed, current: Observed
) -> tuple[dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], dict[str, str]]:
    """Return the columns [n] and [m] that both sides have, by name, and why each other column is left out."""
    columns = {SCORE: (np.asarray(reference.score, np.float64), np.asarray(current.score, np.float64))}
    left_out: dict[str, str] = {}
    for index, name in enumerate(reference.descriptor_names):
        if name not in current.descriptor_names:
            left_out[name] = "not measured when serving"
            continue
        position = current.descriptor_names.index(name)
        columns[name] = (
            np.asarray(reference.descriptors[:, index], np.float64),
            np.asarray(current.descriptors[:, position], np.float64),
        )
    return columns, left_out


def _column(
    name: str,
    scaled: thresholds.Scaled,
    raw: tuple[NDArray[np.float64], NDArray[np.float64]],
    distance: float,
    threshold: float,
) -> Column:
    before, after = (float(np.nanmedian(np.where(np.isfinite(side), side, np.nan))) for side in raw)
    if scaled.spread == 0:
        limit = thresholds.CONSTANT_DISTANCE
        return Column(name, thresholds.CONSTANT_METHOD, distance, limit, distance >= limit, before, after, None)
    shift = (after - before) / scaled.spread
    return Column(name, thresholds.METHOD, distance, threshold, distance >= threshold, before, after, shift)


def _conclude(
    columns: Sequence[Column],
    embedding: Embedding | None,
    left_out: dict[str, str],
    stated: list[str],
    false_alarms: FalseAlarms | None,
) -> Comparison:
    """Decide whether it is drift and state the reasons in words."""
    score = next((column for column in columns if column.name == SCORE), None)
    descriptors = [column for column in columns if column.name != SCORE]
    moved = [column for column in descriptors if column.drifted]
    reasons = []
    if score is not None and score.drifted:
        reasons.append("the anomaly score drifted")
    if embedding is not None and embedding.drifted:
        reasons.append(f"the embedding drifted: {embedding.share:.0%} of its components moved")
    enough = len(moved) >= thresholds.DESCRIPTOR_SHARE * len(descriptors)
    if moved and (enough or reasons):
        names = ", ".join(column.name for column in sorted(moved, key=lambda column: -column.distance))
        reasons.append(f"{len(moved)} of {len(descriptors)} descriptors drifted: {names}")
    drifted = bool(reasons)
    if false_alarms is not None and false_alarms.broken:
        drifted = drifted or false_alarms.drifted
        reasons.insert(0 if false_alarms.drifted else len(reasons), false_alarms.reason())
    return Comparison(drifted, reasons, score, descriptors, embedding, left_out, stated, false_alarms)
