"""How certain the last predictions of a classifier were, and how many of them people found right."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select

from pipelines.catalogue.annotations import DELIBERATE
from pipelines.catalogue.database import connect
from pipelines.catalogue.schema import annotations, predictions


@dataclass(frozen=True)
class PastAccuracy:
    """The last predictions of a classifier.

    Attributes:
        predictions: their number.
        mean_certainty: mean of their certainties, 0 to 1; None if there are none.
        annotated: number of those whose class people have confirmed or corrected.
        correct: number of those that people have confirmed.
        since: when the first of them was made.
    """

    predictions: int
    mean_certainty: float | None
    annotated: int
    correct: int
    since: datetime | None


def past_accuracy(project: str, last: int) -> PastAccuracy:
    """Return certainty and accuracy of the `last` predictions of classifiers of `project`, whatever their version.

    What people say of an image is its latest deliberate annotation; it applies to each prediction of the image.
    """
    table = predictions.c
    recent = (
        select(table.sha256, table.score, table.created_at, table.answer["class"].as_string().label("predicted"))
        .where(table.project == project, table.task == "classification")
        .order_by(table.created_at.desc(), table.id.desc())
        .limit(last)
        .subquery()
    )
    said = (
        select(annotations.c.label)
        .where(
            annotations.c.project == project,
            annotations.c.sha256 == recent.c.sha256,
            annotations.c.origin.in_(DELIBERATE),
        )
        .order_by(annotations.c.id.desc())
        .limit(1)
        .correlate(recent)
        .scalar_subquery()
    )
    judged = select(recent, said.label("said")).subquery()
    counted = select(
        func.count(),
        func.avg(judged.c.score),
        func.count(judged.c.said),
        func.count(case((judged.c.said == judged.c.predicted, 1))),
        func.min(judged.c.created_at),
    )
    with connect() as connection:
        number, certainty, annotated, correct, since = connection.execute(counted).one()
    return PastAccuracy(number, None if certainty is None else float(certainty), annotated, correct, since)
