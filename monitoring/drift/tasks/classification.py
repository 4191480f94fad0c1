"""Drift of a classifier: its certainty, the classes that it predicts, and its accuracy where people judged it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from monitoring.drift.comparison import Confirmed, Observed
from monitoring.drift.current_window import Current
from monitoring.drift.scored_images import Answer
from monitoring.drift.tasks.interface import Findings
from pipelines.catalogue import connect, schema
from pipelines.catalogue.annotations import DELIBERATE
from pipelines.catalogue.schema import predictions, samples
from pipelines.config.project import Project
from pipelines.registry.package import Package
from pipelines.tasks.classification.package import LOGITS, ClassificationPackage
from pipelines.tasks.classification.predict import conformal_set, predict, softmax


class ClassificationDrift:
    """See `monitoring.drift.tasks.interface.DriftTask`."""

    score_name = "certainty"

    def reference(self, package: Package) -> Observed:
        """Return the validation set, with the certainties and classes that the version gives it."""
        own = _own(package)
        arrays = own.reference
        answers = [_answer(own, row) for row in softmax(arrays[LOGITS].astype(np.float32) / own.card.temperature)]
        return Observed(
            score=np.array([answer.score for answer in answers], np.float64),
            embedding=arrays["embedding"],
            descriptors=arrays["descriptors"],
            descriptor_names=tuple(str(name) for name in arrays["descriptor_names"]),
            score_name=self.score_name,
            classes=np.array([answer.predicted for answer in answers], np.str_),
            unsure=np.array([answer.unsure for answer in answers], np.bool_),
        )

    def stored(self, row: Mapping[Any, Any]) -> Answer | None:
        """Return class and certainty of a row."""
        answer = row["answer"]
        if row["score"] is None or not isinstance(answer, Mapping) or not isinstance(answer.get("class"), str):
            return None
        return Answer(row["score"], answer["class"], bool(answer.get("unsure")))

    def predict(
        self, package: Package, images: Sequence[NDArray[np.uint8]]
    ) -> list[tuple[Answer, NDArray[np.float32]]]:
        """Classify images."""
        own = _own(package)
        return [(_answer(own, one.probabilities), one.embedding) for one in predict(own, list(images))]

    def examine(self, project: Project, version: str, package: Package, current: Current) -> Findings:
        """Return the accuracy of the version's predictions in the window that people confirmed or corrected."""
        confirmed = confirmed_predictions(project, version, current)
        results = {"confirmed": asdict(confirmed) if confirmed else None}
        return Findings(results, reasons=[confirmed.reason()] if confirmed and confirmed.below else [])


def confirmed_predictions(project: Project, version: str, current: Current) -> Confirmed | None:
    """Return how often `version` was right by what people said of its predictions in the window; None if nobody did.

    Each image counts once, by its first prediction and its latest annotation. One that was annotated before the version
    first saw it does not count: the version may have learnt from it. Neither do withdrawn images.
    """
    table = predictions.c
    first = (
        select(func.min(table.id).label("id"))
        .where(
            table.project == project.name,
            table.model_version == version,
            table.created_at > current.since,
            table.created_at <= current.until,
        )
        .group_by(table.sha256)
        .subquery()
    )
    said = schema.annotations.c
    of_image = (said.project == project.name, said.origin.in_(DELIBERATE), said.sha256 == table.sha256)
    earliest, label = (
        select(column).where(*of_image).order_by(order).limit(1).correlate(predictions).scalar_subquery()
        for column, order in (
            (said.created_at, said.id),
            (said.label, said.id.desc()),
        )
    )
    withdrawn = (
        select(samples.c.id)
        .where(samples.c.project == project.name, samples.c.sha256 == table.sha256, samples.c.withdrawn_at.is_not(None))
        .correlate(predictions)
        .exists()
    )
    query = (
        select(table.answer["class"].as_string(), label)
        .join(first, first.c.id == table.id)
        .where(earliest > table.created_at, ~withdrawn)
    )
    with connect() as connection:
        judged = connection.execute(query).all()
    if not judged:
        return None
    right = sum(predicted == named for predicted, named in judged)
    return Confirmed.of(right, len(judged), project.promotion.minimum_accuracy)


def _answer(package: ClassificationPackage, probabilities: NDArray[np.float32]) -> Answer:
    place = int(np.argmax(probabilities))
    unsure = len(conformal_set(package, probabilities)) > 1
    return Answer(float(probabilities[place]), package.card.classes[place], unsure)


def _own(package: Package) -> ClassificationPackage:
    assert isinstance(package, ClassificationPackage)
    return package
