"""The images that serving saw lately, as the champion sees them.

What another version scored is scored again from the kept image, so that a promotion is no drift.
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

NEWEST = 2000  # images at most: enough for any threshold, and a bound on what has to be scored again
_CHUNK = 32  # images in memory at a time
_READERS = 4  # S3 connections

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Current:
    """What was served since `since`, seen by one version.

    `served` predictions of `distinct` images; of the newest NEWEST of them `reused` had been scored by this version,
    `rescored` were scored again, `lost` have no image any more. `anomalous` is the share of the observed images above
    the version's threshold; `false_alarms` of these are good by what people said of them and not withdrawn, without
    those that the threshold was set on.
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
class _Seen:
    """One image, in order of serving: score, embedding float32 [d], and the descriptors measured then."""

    order: int
    sha256: str
    score: float
    embedding: np.ndarray
    descriptors: dict[str, float]


def collect(project: Project, version: str, package: AnomalyPackage, now: datetime) -> Current:
    """Return the distinct images served in the project's drift window before `now`, as `version` scores them.

    Raises:
        StorageError: S3 did not give an image for another reason than that it is gone.
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
        _Seen(row["id"], row["sha256"], row["score"], np.frombuffer(row["embedding"], "<f4"), row["descriptors"])
        for row in own
    ]
    rescored = list(_score_again(project, package, others))
    if len(rescored) < len(others):
        log.warning("%d served images are no longer kept, or cannot be read: left out", len(others) - len(rescored))
    seen = sorted(reused + rescored, key=lambda one: one.order)  # Evidently draws them in this order
    observed = _observed(seen, package)
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
        anomalous=float((observed.score > threshold).mean()) if seen else 0.0,
        false_alarms=_good(project.name, {one.sha256 for one in seen if one.score > threshold}, package),
    )


def reference(package: AnomalyPackage) -> Observed:
    """Return the champion's validation set, as it was seen when its threshold was set."""
    arrays = package.reference
    names = tuple(str(name) for name in arrays["descriptor_names"])
    return Observed(arrays["score"], arrays["embedding"], arrays["descriptors"], names)


def _good(project: str, raised: set[str], package: AnomalyPackage) -> int:
    """Return how many of the images that were raised are good by what people said of them."""
    hashes = sorted(raised - {str(digest) for digest in package.reference["sha256"]})
    labels, count = effective_labels(project), 0
    with connect() as connection:
        for chunk in chunks(hashes):
            found = (
                select(func.count())
                .select_from(samples)
                .join(labels, labels.c.sha256 == samples.c.sha256)
                .where(
                    samples.c.project == project,
                    samples.c.sha256.in_(chunk),
                    samples.c.withdrawn_at.is_(None),
                    labels.c.label == "good",
                )
            )
            count += connection.execute(found).scalar_one()
    return count


def _score_again(project: Project, package: AnomalyPackage, rows: Sequence[RowMapping]) -> Iterator[_Seen]:
    """Score the kept images of `rows`; one that is gone or cannot be read is left out."""
    storage = Storage(project.bucket)

    def pixels(row: RowMapping) -> np.ndarray | None:
        if not row["image_key"]:
            return None
        try:
            data = storage.get(row["image_key"])
            return open_image(data, max_pixels=project.image.max_pixels, min_side=1).pixels
        except (NotFound, BadImage):
            return None

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            opened = [
                (row, image) for row, image in zip(chunk, readers.map(pixels, chunk), strict=True) if image is not None
            ]
            for (row, _), one in zip(opened, predict(package, [image for _, image in opened]), strict=True):
                yield _Seen(row["id"], row["sha256"], one.score, one.embedding, row["descriptors"])


def _observed(seen: Sequence[_Seen], package: AnomalyPackage) -> Observed:
    known = [str(name) for name in package.reference["descriptor_names"]]
    names = tuple(name for name in known if any(name in one.descriptors for one in seen))
    values = [[_number(one.descriptors.get(name)) for name in names] for one in seen]
    width = package.reference["embedding"].shape[1]
    return Observed(
        score=np.array([one.score for one in seen], np.float64),
        embedding=np.array([one.embedding for one in seen], np.float32).reshape(len(seen), width),
        descriptors=np.array(values, np.float64).reshape(len(seen), len(names)),
        descriptor_names=names,
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
