"""Commit a batch to the catalogue atomically, in one short transaction.

Rows are looked up before they are inserted, under the project's lock, so that repeated and concurrent batches leave the
same rows as a single one.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, select, update

from pipelines.catalogue.database import chunks, insert_new, lock_project, transaction, whole_table_joins
from pipelines.catalogue.image_hashes import enter_hashes
from pipelines.catalogue.samples import effective_labels
from pipelines.catalogue.schema import annotations, groups, now, rejections, samples
from pipelines.catalogue.splits import Expected, NewGroup, Origin, Side, assign, assign_by_class
from pipelines.config.project import Project
from pipelines.ingest.inbox_keys import comparable
from pipelines.ingest.name_lists import some
from pipelines.ingest.near_copies import group_near_copies
from pipelines.ingest.validate import Mask, Rejection, Sample


def enter(
    project: Project,
    run: str,
    taken: Sequence[Sample],
    masks: Sequence[Mask],
    refused: Sequence[Rejection],
    expected: Expected,
) -> list[dict[str, Any]]:
    """Insert samples, late masks and rejections; return the outcome of each as {"key", "outcome", …}.

    Outcomes: accepted, known (a sample with the same bytes exists), annotated (a known sample or a late mask with a new
    annotation), rejected. `notes` are messages for the sender.

    Args:
        project: the project.
        run: id of the ingest run.
        taken: validated images.
        masks: masks of images ingested earlier.
        refused: rejected objects.
        expected: numbers of good images after this run, for the assignment of sides.

    Raises:
        CatalogueError: the database is unavailable; nothing was inserted.
    """
    with transaction() as connection:
        lock_project(connection, project.name)
        return enter_in(connection, project, run, taken, masks, refused, expected)


def enter_in(
    connection: Connection,
    project: Project,
    run: str,
    taken: Sequence[Sample],
    masks: Sequence[Mask] = (),
    refused: Sequence[Rejection] = (),
    expected: Expected | None = None,
) -> list[dict[str, Any]]:
    """Do the work of `enter` within the caller's transaction, which must hold the project's lock.

    A sample whose item is `deliberate` is annotated by the caller.
    """
    hashes = {sample.row["sha256"] for sample in taken}
    before = set(_rows(connection, project.name, hashes))
    new = [sample for sample in taken if sample.row["sha256"] not in before]
    tied: dict[str, str] = {}
    if project.task == "classification":
        tied = group_near_copies(connection, project.name, new)
    sides = _give_sides(connection, project, new, expected, tied)
    insert_new(connection, samples, [sample.row for sample in taken])
    hashes_of = {sample.row["sha256"]: sample.image_hash for sample in new}
    enter_hashes(connection, project.name, {sha: number for sha, number in hashes_of.items() if number is not None})
    rows = _rows(connection, project.name, hashes)
    added = _annotate(connection, project.name, taken, masks)
    _enter_rejections(connection, project.name, run, refused)
    disputed = _disputed(connection, project.name, hashes | {str(mask.item.sha256) for mask in masks})
    results = [_outcome(sample, rows[sample.row["sha256"]], run, added, sides, disputed) for sample in taken]
    for mask in masks:
        sha256 = str(mask.item.sha256)
        outcome = "annotated" if sha256 in added else "known"
        result = {"key": mask.item.key, "outcome": outcome, "sha256": sha256, "kind": mask.item.kind}
        results.append(result | {"notes": mask.notes})
    for rejection in refused:
        result = {"key": rejection.item.key, "outcome": "rejected", "reason": rejection.reason}
        results.append(result | {"rejected_key": rejection.rejected_key})
    return results


def side_counts(connection: Connection, project: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of good and unlabelled samples, and of anomalies, each by side."""
    labels = effective_labels(project)
    of_side = (
        select(groups.c.side, func.count().label("number"))
        .select_from(samples)
        .join(groups, and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key))
        .where(samples.c.project == project, samples.c.withdrawn_at.is_(None))
        .group_by(groups.c.side)
    )
    of_anomalies = of_side.join(labels, labels.c.sha256 == samples.c.sha256).where(labels.c.label == "anomaly")
    with whole_table_joins(connection):
        anomalies = {row.side: row.number for row in connection.execute(of_anomalies)}
        every = {row.side: row.number for row in connection.execute(of_side)}
    good = {side: count - anomalies.get(side, 0) for side, count in every.items()}
    return {side: count for side, count in good.items() if count}, anomalies


def class_counts(connection: Connection, project: str) -> dict[str | None, dict[str, int]]:
    """Return the numbers of samples by class, and of each by side; unlabelled and disputed ones are under None."""
    labels = effective_labels(project)
    of_side = (
        select(groups.c.side, func.count().label("number"))
        .select_from(samples)
        .join(groups, and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key))
        .where(samples.c.project == project, samples.c.withdrawn_at.is_(None))
        .group_by(groups.c.side)
    )
    of_class = (
        of_side.add_columns(labels.c.label)
        .join(labels, labels.c.sha256 == samples.c.sha256)
        .where(labels.c.label.is_not(None))
        .group_by(labels.c.label)
    )
    counts: dict[str | None, dict[str, int]] = {}
    with whole_table_joins(connection):
        for row in connection.execute(of_class):
            counts.setdefault(row.label, {})[row.side] = row.number
        every = {row.side: row.number for row in connection.execute(of_side)}
    labelled = Counter[str]()
    for sides in counts.values():
        labelled.update(sides)
    return counts | {None: {side: number - labelled[side] for side, number in every.items()}}


def find_earlier(connection: Connection, project: str, run: str, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return the outcomes, as `enter` does, of objects that an earlier attempt of this run has processed."""
    results: list[dict[str, Any]] = []
    for chunk in chunks(map(comparable, keys)):
        for table, outcome in ((samples, "accepted"), (rejections, "rejected")):
            rows = connection.execute(
                select(table).where(
                    table.c.project == project, table.c.ingest_run == run, table.c.source_key.in_(chunk)
                )
            ).mappings()
            for row in rows:
                more = {name: row[name] for name in ("sha256", "reason", "rejected_key") if name in row}
                results.append({"key": row["source_key"], "outcome": outcome} | more)
    return results


def _rows(connection: Connection, project: str, hashes: Iterable[str]) -> dict[str, RowMapping]:
    """Return the samples with these hashes by SHA-256, with their sides."""
    by_hash: dict[str, RowMapping] = {}
    for chunk in chunks(hashes):
        rows = connection.execute(
            select(samples.c.sha256, samples.c.source_key, samples.c.ingest_run, groups.c.side)
            .join(groups, and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key))
            .where(samples.c.project == project, samples.c.sha256.in_(chunk))
        ).mappings()
        by_hash |= {row["sha256"]: row for row in rows}
    return by_hash


def _give_sides(
    connection: Connection,
    project: Project,
    new: Sequence[Sample],
    expected: Expected | None,
    tied: Mapping[str, str],
) -> dict[str, Side]:
    """Assign sides to the new groups among these samples and return the side of every group.

    Groups for which `tied` names the same group share a side.
    """
    members: dict[str, list[Sample]] = {}
    for sample in {sample.row["sha256"]: sample for sample in reversed(new)}.values():
        members.setdefault(sample.row["group_key"], []).append(sample)
    sides: dict[str, Side] = {}
    for chunk in chunks({*members, *tied}):
        rows = connection.execute(
            select(groups.c.group_key, groups.c.side).where(
                groups.c.project == project.name, groups.c.group_key.in_(chunk)
            )
        )
        sides |= {row.group_key: row.side for row in rows}
    taken = {tied[key]: sides[key] for key in sorted(tied) if key in sides}
    missing = {key: tied.get(key, key) for key in members if key not in sides}
    united: dict[str, list[Sample]] = {}
    for key, together in missing.items():
        if together not in taken:
            united.setdefault(together, []).extend(members[key])
    fresh = [_group(key, of_group) for key, of_group in united.items()]
    given: dict[str, tuple[Side, Origin]] = {}
    if fresh and project.task == "classification":
        counts = class_counts(connection, project.name)
        given = assign_by_class(project.name, fresh, targets=project.subsets, counts=counts)
    elif fresh:
        good, anomalies = side_counts(connection, project.name)
        given = assign(project.name, fresh, targets=project.subsets, good=good, anomalies=anomalies, expected=expected)
    bound: dict[str, tuple[Side, Origin]] = {key: (side, "hashed") for key, side in taken.items()}
    chosen = {key: (bound | given)[together] for key, together in missing.items()}
    rows_to_add = [
        {"project": project.name, "group_key": key, "side": side, "origin": origin}
        for key, (side, origin) in chosen.items()
    ]
    insert_new(connection, groups, rows_to_add)
    return sides | {key: side for key, (side, _) in chosen.items()}


def _group(key: str, members: Sequence[Sample]) -> NewGroup:
    members = sorted(members, key=lambda sample: str(sample.item.key))
    metadata = [sample.item.known for sample in members]
    labels = Counter(sample.item.label for sample in members if sample.item.label)
    return NewGroup(
        key,
        size=len(members),
        anomalous=all(sample.item.label == "anomaly" for sample in members),
        split=next((entry.split for entry in metadata if entry.split), None),
        asked=next((entry.asked for entry in metadata if entry.asked), None),
        label=labels.most_common(1)[0][0] if labels else None,  # of several equally frequent ones the first
    )


def _annotate(connection: Connection, project: str, taken: Sequence[Sample], masks: Sequence[Mask]) -> set[str]:
    """Insert missing annotations and return the hashes of the samples that received one."""
    wanted: dict[tuple[Any, ...], dict[str, Any]] = {}

    def want(
        sha256: str,
        label: str,
        kind: str | None,
        source_key: str,
        marks: Sample | Mask,
        author: str | None = None,
    ) -> None:
        row = {"sha256": sha256, "label": label, "type": kind, "mask_key": marks.mask_key, "source_key": source_key}
        key = (*row.values(), _text(marks.content))
        wanted[key] = row | {"content": marks.content, "project": project, "origin": "inbox", "author": author}

    for sample in taken:
        item = sample.item
        if item.label and not item.deliberate:
            source = sample.row["source_key"]
            want(sample.row["sha256"], item.label, item.type, source, sample, item.author)
    for late in masks:
        item = late.item
        want(str(item.sha256), "anomaly", item.type, str(item.image_key), late)
    present: set[tuple[Any, ...]] = set()
    columns = (annotations.c[name] for name in ("sha256", "label", "type", "mask_key", "source_key", "content"))
    query = select(*columns).where(annotations.c.project == project, annotations.c.origin == "inbox")
    for chunk in chunks(sorted({key[0] for key in wanted})):
        for sha256, label, kind, mask_key, source_key, content in connection.execute(
            query.where(annotations.c.sha256.in_(chunk))
        ):
            present.add((sha256, label, kind, mask_key, source_key, _text(content)))
            # Also without its mask and regions, which a repeated batch may no longer find in the inbox.
            present.add((sha256, label, kind, mask_key, source_key, None))
            present.add((sha256, label, kind, None, source_key, None))
            if content:
                present.add((sha256, label, None, None, source_key, None))
    missing = [row for key, row in wanted.items() if key not in present]
    if missing:
        connection.execute(annotations.insert(), missing)
    return {row["sha256"] for row in missing}


def _text(content: dict[str, Any] | None) -> str | None:
    """Return the regions of an annotation as text, to compare them."""
    return json.dumps(content, sort_keys=True) if content else None


def _enter_rejections(connection: Connection, project: str, run: str, refused: Sequence[Rejection]) -> None:
    for rejection in refused:
        source_key = comparable(rejection.item.key)
        same = and_(
            rejections.c.project == project,
            rejections.c.source_key == source_key,
            rejections.c.etag == rejection.item.etag,
        )
        values = {
            "reason": rejection.reason,
            "rejected_key": rejection.rejected_key,
            "rejected_at": now(),
            "ingest_run": run,
        }
        if not connection.execute(update(rejections).where(same).values(**values)).rowcount:
            connection.execute(
                rejections.insert().values(project=project, source_key=source_key, etag=rejection.item.etag, **values)
            )


def _disputed(connection: Connection, project: str, hashes: Iterable[str]) -> dict[str, list[str]]:
    """Return the labels of the disputed ones among these samples, by SHA-256."""
    disputed: dict[str, list[str]] = {}
    for chunk in chunks(hashes):
        labels = effective_labels(project, chunk)
        query = (
            select(annotations.c.sha256, annotations.c.label)
            .join(labels, labels.c.sha256 == annotations.c.sha256)
            .where(annotations.c.project == project, annotations.c.sha256.in_(chunk), labels.c.disputed)
            .distinct()
            .order_by(annotations.c.label)
        )
        for row in connection.execute(query):
            disputed.setdefault(row.sha256, []).append(row.label)
    return disputed


def _outcome(
    sample: Sample, row: RowMapping, run: str, added: set[str], sides: Mapping[str, str], disputed: dict[str, list[str]]
) -> dict[str, Any]:
    sha256 = sample.row["sha256"]
    metadata = sample.item.known
    if row["ingest_run"] == run and row["source_key"] == sample.row["source_key"]:
        outcome = "accepted"
    else:
        outcome = "annotated" if sha256 in added else "known"
    notes = [*metadata.notes, *sample.notes]
    asked = metadata.split or metadata.asked
    allowed = ("training", "validation") if asked == "train" else (asked,)
    if asked and row["side"] not in allowed:
        notes.append(f"{asked} was asked for, but its group is in {row['side']} and stays there")
    if sha256 in disputed:
        labels = some(disputed[sha256])
        notes.append(f"disputed: it came as each of {labels}, and stays out of training until somebody decides")
    return {"key": sample.item.key, "outcome": outcome, "sha256": sha256, "side": row["side"], "notes": notes}
