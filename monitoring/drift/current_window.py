"""Collects the images served lately, with the scores that the champion gives them.

Images that another version scored are scored again from their stored copies, so that a promotion does not look like
drift.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import RowMapping, case, func, select

from monitoring.drift.comparison import Observed
from monitoring.drift.scored_images import ScoredImage, observe
from pipelines.catalogue import connect
from pipelines.catalogue.database import chunks
from pipelines.catalogue.schema import predictions
from pipelines.config.project import Project
from pipelines.errors import BadImage, NotFound
from pipelines.images.decode import open_image
from pipelines.registry.package import Package
from pipelines.storage.s3 import Storage

if TYPE_CHECKING:
    from monitoring.drift.tasks.interface import DriftTask

NEWEST = 2000  # images at most: bounds how many have to be scored again
_CHUNK = 32  # images in memory at a time
_READERS = 4  # S3 connections

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Current:
    """The current window: the distinct images served in it, scored by one version.

    Attributes:
        scored: at most NEWEST images, in order of serving.
        observed: the same as columns.
        since: start of the window (exclusive).
        until: end of the window (inclusive).
        served: number of predictions in the window.
        distinct: number of distinct images among them.
        reused: images whose stored score is this version's.
        rescored: images that another version had scored, scored again.
        lost: images to be scored again whose stored copy is gone or unreadable; not in `scored`.
    """

    scored: tuple[ScoredImage, ...]
    observed: Observed
    since: datetime
    until: datetime
    served: int
    distinct: int
    reused: int
    rescored: int
    lost: int

    def __len__(self) -> int:
        return len(self.scored)


def collect(
    project: Project, task: DriftTask, version: str, package: Package, reference: Observed, now: datetime
) -> Current:
    """Return the distinct images served in the project's drift window before `now`, with the scores of `version`.

    Args:
        project: the project.
        task: how drift reads its task.
        version: number of the version in the registry.
        package: its package.
        reference: its reference, whose columns the window has.
        now: end of the window.

    Raises:
        StorageError: S3 could not return an image for a reason other than its absence.
    """
    since = now - timedelta(days=project.drift.window_days)
    with connect() as connection:
        within = (
            predictions.c.project == project.name,
            predictions.c.created_at > since,
            predictions.c.created_at <= now,
        )
        served, distinct = connection.execute(
            select(func.count(), func.count(predictions.c.sha256.distinct())).where(*within)
        ).one()
        newest = func.max(predictions.c.id)
        images = connection.execute(
            select(
                newest.label("newest"),
                func.max(case((predictions.c.model_version == version, predictions.c.id))).label("own"),
                func.max(case((predictions.c.image_key.is_not(None), predictions.c.id))).label("kept"),
            )
            .where(*within)
            .group_by(predictions.c.sha256)
            .order_by(newest.desc())
            .limit(NEWEST)
        ).all()
        chosen = [image.own or image.kept or image.newest for image in images]
        rows: list[RowMapping] = []
        for chunk in chunks(chosen):
            query = select(
                predictions.c.id,
                predictions.c.sha256,
                predictions.c.model_version,
                predictions.c.score,
                predictions.c.answer,
                predictions.c.embedding,
                predictions.c.descriptors,
                predictions.c.image_key,
            ).where(predictions.c.id.in_(chunk))
            rows += connection.execute(query).mappings().all()
    answers = {row["id"]: task.stored(row) for row in rows if row["model_version"] == version}
    reused = [
        ScoredImage(row["id"], row["sha256"], answer, np.frombuffer(row["embedding"], "<f4"), row["descriptors"])
        for row in rows
        if (answer := answers.get(row["id"])) is not None
    ]
    others = [row for row in rows if answers.get(row["id"]) is None]
    rescored = list(_score_again(project, task, package, others))
    if len(rescored) < len(others):
        log.warning("%d served images are no longer kept, or cannot be read: left out", len(others) - len(rescored))
    # Evidently plots them in this order.
    scored = tuple(sorted(reused + rescored, key=lambda image: image.order))
    return Current(
        scored=scored,
        observed=observe(scored, reference),
        since=since,
        until=now,
        served=served,
        distinct=distinct,
        reused=len(reused),
        rescored=len(rescored),
        lost=len(others) - len(rescored),
    )


def _score_again(
    project: Project, task: DriftTask, package: Package, rows: Sequence[RowMapping]
) -> Iterator[ScoredImage]:
    """Score the stored images of `rows`; skip those that are gone or unreadable."""
    bits = getattr(package.card, "bits", None)
    storage = Storage(project.bucket)

    def pixels(row: RowMapping) -> np.ndarray | None:
        if not row["image_key"]:
            return None
        try:
            data = storage.get(row["image_key"])
            return open_image(data, max_pixels=project.image.max_pixels, min_side=1, bits=bits).pixels
        except (NotFound, BadImage):
            return None

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            opened = [
                (row, image) for row, image in zip(chunk, readers.map(pixels, chunk), strict=True) if image is not None
            ]
            for (row, _), (answer, embedding) in zip(
                opened, task.predict(package, [image for _, image in opened]), strict=True
            ):
                yield ScoredImage(row["id"], row["sha256"], answer, embedding, row["descriptors"])
