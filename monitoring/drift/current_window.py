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

import numpy as np
from sqlalchemy import RowMapping, case, func, select

from monitoring.drift.report import Observed
from pipelines.catalogue import connect
from pipelines.catalogue.database import chunks
from pipelines.catalogue.samples import effective_labels
from pipelines.catalogue.schema import predictions, samples
from pipelines.config.project import Project
from pipelines.errors import BadImage, NotFound
from pipelines.images.decode import open_image
from pipelines.storage.s3 import Storage
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import predict

NEWEST = 2000  # images at most: bounds how many have to be scored again
_CHUNK = 32  # images in memory at a time
_READERS = 4  # S3 connections

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Current:
    """The current window: the distinct images served in it, scored by one version.

    Attributes:
        observed: scores, embeddings and descriptors of at most NEWEST images.
        since: start of the window (exclusive).
        until: end of the window (inclusive).
        served: number of predictions in the window.
        distinct: number of distinct images among them.
        reused: images whose stored score is this version's.
        rescored: images that another version had scored, scored again.
        lost: images to be scored again whose stored copy is gone or unreadable; not in `observed`.
        anomalous: share of the observed images above the version's threshold, 0..1.
        false_alarms: number of these that are annotated as good and not withdrawn, without calibration images.
    """

    observed: Observed
    since: datetime
    until: datetime
    served: int
    distinct: int
    reused: int
    rescored: int
    lost: int
    anomalous: float
    false_alarms: int

    def __len__(self) -> int:
        return len(self.observed)


@dataclass(frozen=True)
class _ScoredImage:
    """One image with its score.

    Attributes:
        order: id of its prediction, which grows in order of serving.
        sha256: digest of the image.
        score: the anomaly score.
        embedding: float32 [d].
        descriptors: values by name, as measured when it was served.
    """

    order: int
    sha256: str
    score: float
    embedding: np.ndarray
    descriptors: dict[str, float]


def collect(project: Project, version: str, package: AnomalyPackage, now: datetime) -> Current:
    """Return the distinct images served in the project's drift window before `now`, with the scores of `version`.

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
                predictions.c.embedding,
                predictions.c.descriptors,
                predictions.c.image_key,
            ).where(predictions.c.id.in_(chunk))
            rows += connection.execute(query).mappings().all()
    own = [row for row in rows if row["model_version"] == version]
    others = [row for row in rows if row["model_version"] != version]
    reused = [
        _ScoredImage(row["id"], row["sha256"], row["score"], np.frombuffer(row["embedding"], "<f4"), row["descriptors"])
        for row in own
    ]
    rescored = list(_score_again(project, package, others))
    if len(rescored) < len(others):
        log.warning("%d served images are no longer kept, or cannot be read: left out", len(others) - len(rescored))
    scored = sorted(reused + rescored, key=lambda image: image.order)  # Evidently plots them in this order
    observed = _observed(scored, package)
    threshold = package.card.threshold
    return Current(
        observed=observed,
        since=since,
        until=now,
        served=served,
        distinct=distinct,
        reused=len(reused),
        rescored=len(rescored),
        lost=len(others) - len(rescored),
        anomalous=float((observed.score > threshold).mean()) if scored else 0.0,
        false_alarms=_good(project.name, {image.sha256 for image in scored if image.score > threshold}, package),
    )


def reference(package: AnomalyPackage) -> Observed:
    """Return the champion's validation set, with the scores that its threshold was set on."""
    arrays = package.reference
    names = tuple(str(name) for name in arrays["descriptor_names"])
    return Observed(arrays["score"], arrays["embedding"], arrays["descriptors"], names)


def _good(project: str, raised: set[str], package: AnomalyPackage) -> int:
    """Return how many of the images in `raised` (digests) are annotated as good."""
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


def _score_again(project: Project, package: AnomalyPackage, rows: Sequence[RowMapping]) -> Iterator[_ScoredImage]:
    """Score the stored images of `rows`; skip those that are gone or unreadable."""
    storage = Storage(project.bucket)

    def pixels(row: RowMapping) -> np.ndarray | None:
        if not row["image_key"]:
            return None
        try:
            data = storage.get(row["image_key"])
            return open_image(data, max_pixels=project.image.max_pixels, min_side=1, bits=package.card.bits).pixels
        except (NotFound, BadImage):
            return None

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            opened = [
                (row, image) for row, image in zip(chunk, readers.map(pixels, chunk), strict=True) if image is not None
            ]
            for (row, _), prediction in zip(opened, predict(package, [image for _, image in opened]), strict=True):
                yield _ScoredImage(row["id"], row["sha256"], prediction.score, prediction.embedding, row["descriptors"])


def _observed(scored: Sequence[_ScoredImage], package: AnomalyPackage) -> Observed:
    measured = [str(name) for name in package.reference["descriptor_names"]]
    names = tuple(name for name in measured if any(name in image.descriptors for image in scored))
    values = [[_number(image.descriptors.get(name)) for name in names] for image in scored]
    width = package.reference["embedding"].shape[1]
    return Observed(
        score=np.array([image.score for image in scored], np.float64),
        embedding=np.array([image.embedding for image in scored], np.float32).reshape(len(scored), width),
        descriptors=np.array(values, np.float64).reshape(len(scored), len(names)),
        descriptor_names=names,
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
