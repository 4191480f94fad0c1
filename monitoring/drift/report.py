"""Compares what was served lately with the champion's reference by Evidently, and writes the HTML report.

Methods and thresholds are fixed and stated in `monitoring.drift.thresholds`, never Evidently's defaults: those change
with the number of rows and flag columns that did not drift. Evidently is imported inside functions; it takes seconds.
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
    """What a model says of a set of images: `score` [n], `embedding` [n, d], `descriptors` [n, k] (NaN: unknown)."""

    score: NDArray[np.floating]
    embedding: NDArray[np.floating]
    descriptors: NDArray[np.floating]
    descriptor_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.score)

    def embedded(self) -> Observed:
        """Return the images whose embedding is finite, which is all of them unless the model is broken."""
        good = np.isfinite(self.embedding).all(axis=1)
        return replace(self, score=self.score[good], embedding=self.embedding[good], descriptors=self.descriptors[good])


@dataclass(frozen=True)
class Column:
    """How far one column moved.

    `distance` and `threshold` as `method` has them; medians in the column's own unit; `shift` is the median's, in
    reference standard deviations (None for a column that was constant).
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
    """How far the embedding moved: the `share` of its `components` that drifted, and the share that is allowed."""

    components: int
    share: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class FalseAlarms:
    """Whether a promised false-positive rate is kept: of `images`, `found` were called anomalous and are known to be
    good. Nobody looks at every image, so more may be, but no fewer.

    The promise allows for `allowed`; more `broken` it, which happens by chance in one case of forty. More than `limit`
    chance does not give: they `drifted`.
    """

    images: int
    found: int
    allowed: int
    limit: int
    promised: float
    broken: bool
    drifted: bool

    @classmethod
    def of(cls, found: int, images: int, promised: float, n: int, rank: int) -> Self:
        """Judge the promise of a threshold that is, or lies above, the `rank`-th smallest of `n` validation scores."""
        allowed = most_alarms(n, rank, images)
        limit = most_alarms(n, rank, images, thresholds.PROMISE_POINT)
        return cls(images, found, allowed, limit, promised, found > allowed, found > limit)

    def reason(self) -> str:
        """Return in words that, and by how much, it is broken."""
        return (
            f"{self.found} of {self.images} images are called anomalous and known to be good: the promised "
            f"false-positive rate of {percent(self.promised)} allows for at most {self.allowed}"
        )


@dataclass(frozen=True)
class Comparison:
    """The outcome; `score` or `embedding` is None where nothing could be compared, `left_out` says what and why.

    `reasons` say why it is drift; without drift, what people should know nevertheless. `false_alarms` is None where the
    threshold promises nothing that could be counted.
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
        """Return everything as plain numbers and strings."""
        return asdict(self) | {"descriptor_share": self.descriptor_share}


def compare(reference: Observed, current: Observed, false_alarms: FalseAlarms | None = None) -> tuple[Comparison, str]:
    """Compare `current` with `reference` and return the comparison and Evidently's report as HTML (some 3.8 MB).

    Descriptors are matched by name. Both need at least 20 images. More `false_alarms` than chance gives
    are drift as well: the promise holds for all images that come from where the reference comes from.
    """
    from threadpoolctl import threadpool_limits

    # Evidently draws embeddings by t-SNE, whose threads wait in a spin: many times slower on a machine that is busy.
    # scikit-learn and Evidently warn of things that are not ours to change.
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
    for name, (known, seen) in raw.items():
        column = thresholds.scale(known, seen)
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
    known_embedding, seen_embedding = thresholds.scale_embedding(reference.embedding, current.embedding)
    components = [f"component {index + 1}" for index in range(known_embedding.shape[1])]
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
        dataset("current", seen_embedding), dataset("reference", known_embedding)
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
    stated = thresholds.stated(len(reference), len(current), false_alarms.limit if false_alarms else None)
    return _conclude(columns, embedding, left_out, stated, false_alarms), snapshot.get_html_str(as_iframe=False)


def _columns(
    reference: Observed, current: Observed
) -> tuple[dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], dict[str, str]]:
    """Return the columns [n], [m] that both sides have, and why others are left out."""
    found = {SCORE: (np.asarray(reference.score, np.float64), np.asarray(current.score, np.float64))}
    left_out: dict[str, str] = {}
    for index, name in enumerate(reference.descriptor_names):
        if name not in current.descriptor_names:
            left_out[name] = "not measured when serving"
            continue
        there = current.descriptor_names.index(name)
        found[name] = (
            np.asarray(reference.descriptors[:, index], np.float64),
            np.asarray(current.descriptors[:, there], np.float64),
        )
    return found, left_out


def _column(
    name: str,
    scaled: thresholds.Scaled,
    raw: tuple[NDArray[np.float64], NDArray[np.float64]],
    distance: float,
    threshold: float,
) -> Column:
    known, seen = (float(np.nanmedian(np.where(np.isfinite(side), side, np.nan))) for side in raw)
    if scaled.spread == 0:
        limit = thresholds.CONSTANT_DISTANCE
        return Column(name, thresholds.CONSTANT_METHOD, distance, limit, distance >= limit, known, seen, None)
    shift = (seen - known) / scaled.spread
    return Column(name, thresholds.METHOD, distance, threshold, distance >= threshold, known, seen, shift)


def _conclude(
    columns: Sequence[Column],
    embedding: Embedding | None,
    left_out: dict[str, str],
    stated: list[str],
    false_alarms: FalseAlarms | None,
) -> Comparison:
    """Decide, and say why in words."""
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
