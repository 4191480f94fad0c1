"""Query samples: effective labels, subsets and new images.

The effective label of a sample is that of its latest deliberate annotation (origin `decision` or `serving`), else the
label shared by all its inbox annotations. Where those disagree, the sample is disputed and has no label. Where there is
none of either, it is that of its latest proposed annotation (origin `proposed`).
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, String, Subquery, and_, case, cast, func, select, update

from pipelines.catalogue.database import chunks, connect, whole_table_joins
from pipelines.catalogue.schema import annotations, groups, now, samples
from pipelines.config.class_names import RESERVED

# The subset of an anomaly by the side of its group; the subset of any other image is the side itself.
ANOMALY_SUBSETS = {"training": "anomaly/training", "validation": "anomaly/threshold", "test": "anomaly/test"}


def effective_labels(project: str, hashes: Sequence[str] | None = None) -> Subquery:
    """Return a subquery [sha256, label, disputed, proposed, type, mask_key, content], one row per annotated sample of
    `project`; `proposed` tells whether the label is one that nobody has confirmed.

    Of an anomaly, `type`, `mask_key` and `content` are each those of the latest annotation that has one, whatever the
    other two are; a deliberate annotation's type goes first, and a mask that came after the content replaces it. They
    are null for every other label.

    Over all samples, use it in inner joins only, within `whole_table_joins`: anything else may take time that grows
    with the square of their number. SQLite has no index for the outer join of a table with a subquery: count what has
    no annotation by `annotated` instead.

    Args:
        project: name of the project.
        hashes: SHA-256 of the samples in question, at most `CHUNK`: the others' annotations are not read. Default
            None: all.
    """
    deliberate = annotations.c.origin.in_(("decision", "serving"))
    suggested = annotations.c.origin == "proposed"
    sent = ~deliberate & ~suggested
    wanted = [annotations.c.project == project]
    if hashes is not None:
        wanted.append(annotations.c.sha256.in_(hashes))
    # Two nulls: the column's own, and JSON's, which is what SQLAlchemy writes for None unless told otherwise.
    filled = annotations.c.content.is_not(None) & (cast(annotations.c.content, String) != "null")
    spread = (
        select(
            annotations.c.sha256,
            func.max(case((deliberate, annotations.c.id))).label("decided"),
            func.min(case((sent, annotations.c.label))).label("low"),
            func.max(case((sent, annotations.c.label))).label("high"),
            func.max(case((suggested, annotations.c.id))).label("suggested"),
            func.max(case((annotations.c.type.is_not(None), annotations.c.id))).label("typed"),
            func.max(case((annotations.c.mask_key.is_not(None), annotations.c.id))).label("masked"),
            func.max(case((filled, annotations.c.id))).label("described"),
        )
        .where(*wanted)
        .group_by(annotations.c.sha256)
        .subquery()
    )
    decided, guessed, typed, masked, described = (annotations.alias() for _ in range(5))
    agreed = case((spread.c.low == spread.c.high, spread.c.low))
    label = func.coalesce(decided.c.label, agreed, case((spread.c.low.is_(None), guessed.c.label)))
    anomalous = label == "anomaly"
    # A mask that came later replaces the regions before it.
    newest = spread.c.described >= func.coalesce(spread.c.masked, 0)
    return (
        select(
            spread.c.sha256,
            label.label("label"),
            label.is_(None).label("disputed"),
            (spread.c.decided.is_(None) & spread.c.low.is_(None)).label("proposed"),
            case((anomalous, func.coalesce(decided.c.type, typed.c.type))).label("type"),
            case((anomalous, masked.c.mask_key)).label("mask_key"),
            case((anomalous & newest, described.c.content)).label("content"),
        )
        .select_from(spread)
        .outerjoin(decided, decided.c.id == spread.c.decided)
        .outerjoin(guessed, guessed.c.id == spread.c.suggested)
        .outerjoin(typed, typed.c.id == spread.c.typed)
        .outerjoin(masked, masked.c.id == spread.c.masked)
        .outerjoin(described, described.c.id == spread.c.described)
        .subquery()
    )


def annotated(project: str) -> ColumnElement[bool]:
    """Return the condition on a row of `samples` that somebody annotated it; an index answers it for each row."""
    of_sample = (annotations.c.project == project, annotations.c.sha256 == samples.c.sha256)
    return select(annotations.c.id).where(*of_sample).correlate(samples).exists()


def labelled_samples(connection: Connection, project: str) -> Sequence[RowMapping]:
    """Return the samples eligible for a dataset version (labelled, undisputed, not withdrawn), ordered by sha256.

    Each row has every column of `samples`, and label, proposed, type, mask_key, content, side and subset.
    """
    labels = effective_labels(project)
    anomaly_subset = case(ANOMALY_SUBSETS, value=groups.c.side)
    query = (
        select(
            samples,
            labels.c.label,
            labels.c.proposed,
            labels.c.type,
            labels.c.mask_key,
            labels.c.content,
            groups.c.side,
            case((labels.c.label == "anomaly", anomaly_subset), else_=groups.c.side).label("subset"),
        )
        .join(labels, labels.c.sha256 == samples.c.sha256)
        .join(groups, and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key))
        .where(samples.c.project == project, samples.c.withdrawn_at.is_(None), labels.c.label.is_not(None))
        .order_by(samples.c.sha256)
    )
    with whole_table_joins(connection):
        return connection.execute(query).mappings().all()


def classes_of(connection: Connection, project: str) -> list[str]:
    """Return the labels that annotations of a project give, in alphabetical order: of a classifier, its classes."""
    query = select(annotations.c.label).distinct().where(annotations.c.project == project)
    return sorted(label for label in connection.execute(query).scalars() if label not in RESERVED)


def new_images(connection: Connection, project: str, *, unfired: bool = False) -> list[int]:
    """Return the row ids of eligible samples that no completed training has used.

    Eligible samples are labelled, undisputed and not withdrawn. With `unfired` (default False), samples that have
    already triggered a training are left out.
    """
    labels = effective_labels(project)
    query = (
        select(samples.c.id)
        .join(labels, labels.c.sha256 == samples.c.sha256)
        .where(
            samples.c.project == project,
            samples.c.trained_version.is_(None),
            samples.c.withdrawn_at.is_(None),
            labels.c.label.is_not(None),
        )
        .order_by(samples.c.id)
    )
    if unfired:
        query = query.where(samples.c.fired_at.is_(None))
    with whole_table_joins(connection):
        return list(connection.execute(query).scalars())


def count_since(project: str, moment: datetime) -> int:
    """Return the number of samples that came in after `moment` and are not withdrawn."""
    query = select(func.count()).where(
        samples.c.project == project, samples.c.ingested_at > moment, samples.c.withdrawn_at.is_(None)
    )
    with connect() as connection:
        return int(connection.execute(query).scalar_one())


def has_label(project: str, label: str) -> bool:
    """Return whether anybody has annotated a sample of `project` with `label`."""
    people = annotations.c.origin != "proposed"
    query = select(annotations.c.id).where(annotations.c.project == project, annotations.c.label == label, people)
    with connect() as connection:
        return connection.execute(query.limit(1)).first() is not None


def mark_fired(connection: Connection, ids: Sequence[int], when: datetime | None = None) -> None:
    """Mark these samples as having triggered a training at `when` (default: now), so that they trigger no other."""
    for chunk in chunks(ids):
        connection.execute(update(samples).where(samples.c.id.in_(chunk)).values(fired_at=when or now()))


def mark_trained(connection: Connection, project: str, hashes: Sequence[str], version_id: str) -> None:
    """Record `version_id` as the first dataset version of a completed training that used these samples."""
    for chunk in chunks(hashes):
        connection.execute(
            update(samples)
            .where(samples.c.project == project, samples.c.sha256.in_(chunk), samples.c.trained_version.is_(None))
            .values(trained_version=version_id)
        )


def descriptors_of(connection: Connection, project: str, hashes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the descriptors of these samples as ingest measured them, by SHA-256; unknown samples are left out."""
    descriptors: dict[str, dict[str, float]] = {}
    for chunk in chunks(hashes):
        rows = connection.execute(
            select(samples.c.sha256, samples.c.descriptors).where(
                samples.c.project == project, samples.c.sha256.in_(chunk)
            )
        )
        descriptors |= {row.sha256: row.descriptors for row in rows}
    return descriptors
