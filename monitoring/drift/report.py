"""Compares the current window with the champion's reference by Evidently, and renders the HTML report.

Methods and thresholds are those of `monitoring.drift.thresholds`, never Evidently's defaults, which change with the
number of rows and flag columns that did not drift. Evidently takes seconds to import and is imported inside functions.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.drift import thresholds
from monitoring.drift.classes import compare_classes, compare_unsure
from monitoring.drift.comparison import SCORE, Column, Comparison, Embedding, FalseAlarms, Observed

__all__ = ["SCORE", "FalseAlarms", "Observed", "compare"]


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
    shift, unsure = compare_classes(reference, current), compare_unsure(reference, current)
    found = Comparison(
        drifted=False,
        reasons=[],
        score=next((column for column in columns if column.name == reference.score_name), None),
        descriptors=[column for column in columns if column.name != reference.score_name],
        embedding=embedding,
        left_out=left_out,
        stated=thresholds.describe_method(
            len(reference),
            len(current),
            false_alarms.limit if false_alarms else None,
            shift.threshold if shift else None,
            unsure.threshold if unsure else None,
        ),
        false_alarms=false_alarms,
        classes=shift,
        unsure=unsure,
    )
    return _conclude(found), snapshot.get_html_str(as_iframe=False)


def _columns(
    reference: Observed, current: Observed
) -> tuple[dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], dict[str, str]]:
    """Return the columns [n] and [m] that both sides have, by name, and why each other column is left out."""
    columns = {reference.score_name: (np.asarray(reference.score, np.float64), np.asarray(current.score, np.float64))}
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


def _conclude(found: Comparison) -> Comparison:
    """Decide whether it is drift and state the reasons in words."""
    moved = [column for column in found.descriptors if column.drifted]
    reasons = []
    if found.score is not None and found.score.drifted:
        reasons.append(f"the {found.score.name} drifted")
    reasons += [shift.reason() for shift in (found.classes, found.unsure) if shift is not None and shift.drifted]
    if found.embedding is not None and found.embedding.drifted:
        reasons.append(f"the embedding drifted: {found.embedding.share:.0%} of its components moved")
    enough = len(moved) >= thresholds.DESCRIPTOR_SHARE * len(found.descriptors)
    if moved and (enough or reasons):
        names = ", ".join(column.name for column in sorted(moved, key=lambda column: -column.distance))
        reasons.append(f"{len(moved)} of {len(found.descriptors)} descriptors drifted: {names}")
    drifted = bool(reasons)
    alarms = found.false_alarms
    if alarms is not None and alarms.broken:
        drifted = drifted or alarms.drifted
        reasons.insert(0 if alarms.drifted else len(reasons), alarms.reason())
    return replace(found, drifted=drifted, reasons=reasons)
