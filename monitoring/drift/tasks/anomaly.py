"""Drift of an anomaly detector: its score, and whether the promised false-positive rate holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from monitoring.drift.comparison import SCORE, FalseAlarms, Observed
from monitoring.drift.current_window import Current
from monitoring.drift.scored_images import Answer
from monitoring.drift.tasks.interface import Findings
from pipelines.catalogue import connect
from pipelines.catalogue.database import chunks
from pipelines.catalogue.samples import effective_labels
from pipelines.catalogue.schema import samples
from pipelines.config.project import Project
from pipelines.registry.package import Package
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import predict


class AnomalyDrift:
    """See `monitoring.drift.tasks.interface.DriftTask`."""

    score_name = SCORE

    def reference(self, package: Package) -> Observed:
        """Return the validation set, with the scores that the threshold was set on."""
        arrays = _own(package).reference
        names = tuple(str(name) for name in arrays["descriptor_names"])
        return Observed(arrays["score"], arrays["embedding"], arrays["descriptors"], names)

    def stored(self, row: Mapping[Any, Any]) -> Answer | None:
        """Return the anomaly score of a row."""
        return None if row["score"] is None else Answer(row["score"])

    def predict(
        self, package: Package, images: Sequence[NDArray[np.uint8]]
    ) -> list[tuple[Answer, NDArray[np.float32]]]:
        """Score images."""
        return [(Answer(one.score), one.embedding) for one in predict(_own(package), list(images))]

    def examine(self, project: Project, version: str, package: Package, current: Current) -> Findings:
        """Return the share of images above the threshold, and the known false alarms."""
        own = _own(package)
        score, detail = current.observed.score, own.card.threshold_detail
        results: dict[str, Any] = {
            "anomalous": float((score > own.card.threshold).mean()) if len(score) else 0.0,
            "expected_anomalous": project.threshold.defect_rate,
        }
        if detail is None:
            return Findings(results, left_out={"false alarms": "this version does not say what its threshold promises"})
        found = count_false_alarms(project.name, own, current)
        alarms = FalseAlarms.of(found, len(score), detail.promise_kept_at, detail.n_validation, detail.conformal_rank)
        return Findings(results, reasons=[alarms.reason()] if alarms.broken else [], alarms=alarms)


def count_false_alarms(project: str, package: AnomalyPackage, current: Current) -> int:
    """Return how many images above the threshold are annotated as good.

    Neither withdrawn images count nor those that the threshold was set on.
    """
    threshold = package.card.threshold
    raised = {image.sha256 for image in current.scored if image.answer.score > threshold}
    hashes = sorted(raised - {str(digest) for digest in package.reference["sha256"]})
    count = 0
    with connect() as connection:
        for chunk in chunks(hashes):
            labels = effective_labels(project, chunk)
            query = (
                select(func.count())
                .select_from(samples)
                .join(labels, labels.c.sha256 == samples.c.sha256)
                .where(
                    samples.c.project == project,
                    samples.c.withdrawn_at.is_(None),
                    labels.c.label == "good",
                )
            )
            count += connection.execute(query).scalar_one()
    return count


def _own(package: Package) -> AnomalyPackage:
    assert isinstance(package, AnomalyPackage)
    return package
