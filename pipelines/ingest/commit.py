"""Enter a batch in the catalogue: one short transaction, so that a batch is known wholly or not at all.

Everything is looked up before it is inserted, under the project's lock: a repeated batch, and two batches at the same
time, leave the same rows as one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, select, update

from pipelines.catalogue.database import chunks, insert_new, lock_project, transaction
from pipelines.catalogue.samples import effective_labels
from pipelines.catalogue.schema import annotations, groups, now, rejections, samples
from pipelines.catalogue.splits import Expected, NewGroup, assign
from pipelines.config.project import Project
from pipelines.ingest.validate import Mask, Rejection, Sample


def enter(
    project: Project,
    run: str,
    taken: Sequence[Sample],
    masks: Sequence[Mask],
    refused: Sequence[Rejection],
    expected: Expected,
) -> list[dict[str, Any]]:
    """Enter samples, late masks and rejections; return for each what became of it, {"key", "outcome", …}.

    Outcomes: accepted, known (these bytes were a sample already), annotated (a known sample or a late mask that says
    something new), rejected. `notes` holds what the sender should hear of.

    Raises:
        CatalogueError: the database cannot be used; nothing was entered.
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
    """Do what `enter` does within a transaction that holds the project's lock, and may enter more besides.

    A sample whose item is `deliberate` gets its annotation from the caller.
    """
    hashes = {one.row["sha256"] for one in taken}
    before = set(_rows(connection, project.name, hashes))
    sides = _give_sides(connection, project, [one for one in taken if one.row["sha256"] not in before], expected)
    insert_new(connection, samples, [one.row for one in taken])
    rows = _rows(connection, project.name, hashes)
    added = _annotate(connection, project.name, taken, masks)
    _enter_rejections(connection, project.name, run, refused)
    disputed = _disputed(connection, project.name, hashes | {one.item["sha256"] for one in masks})
    results = [_outcome(one, rows[one.row["sha256"]], run, added, sides, disputed) for one in taken]
    for late in masks:
        sha256 = late.item["sha256"]
        outcome = "annotated" if sha256 in added else "known"
        results.append({"key": late.item["key"], "outcome": outcome, "sha256": sha256, "kind": "mask"})
    for one in refused:
        said = {"key": one.item["key"], "outcome": "rejected", "reason": one.reason}
        results.append(said | {"rejected_key": one.rejected_key})
    return results


def side_counts(connection: Connection, project: str) -> tuple[dict[str, int], dict[str, int]]:
    """Count the project's samples by side: first the good and unlabelled ones, then the anomalies."""
    labels = effective_labels(project)
    found = connection.execute(
        select(groups.c.side, labels.c.label, func.count())
        .select_from(samples)
        .join(groups, and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key))
        .outerjoin(labels, labels.c.sha256 == samples.c.sha256)
        .where(samples.c.project == project, samples.c.withdrawn_at.is_(None))
        .group_by(groups.c.side, labels.c.label)
    )
    good: Counter[str] = Counter()
    anomalies: Counter[str] = Counter()
    for side, label, count in found:
        (anomalies if label == "anomaly" else good)[side] += count
    return dict(good), dict(anomalies)


def find_earlier(connection: Connection, project: str, run: str, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return what this run did with objects that are gone by now, as `enter` would have: the batch was begun before."""
    found: list[dict[str, Any]] = []
    for chunk in chunks(keys):
        for table, outcome in ((samples, "accepted"), (rejections, "rejected")):
            rows = connection.execute(
                select(table).where(
                    table.c.project == project, table.c.ingest_run == run, table.c.source_key.in_(chunk)
                )
            ).mappings()
            for row in rows:
                more = {name: row[name] for name in ("sha256", "reason", "rejected_key") if name in row}
                found.append({"key": row["source_key"], "outcome": outcome} | more)
    return found


def _rows(connection: Connection, project: str, hashes: Iterable[str]) -> dict[str, RowMapping]:
    """Return the samples with these hashes and their sides."""
    found: dict[str, RowMapping] = {}
    for chunk in chunks(hashes):
        rows = connection.execute(
            select(samples.c.sha256, samples.c.source_key, samples.c.ingest_run, groups.c.side)
            .join(groups, and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key))
            .where(samples.c.project == project, samples.c.sha256.in_(chunk))
        ).mappings()
        found |= {row["sha256"]: row for row in rows}
    return found


def _give_sides(
    connection: Connection, project: Project, new: Sequence[Sample], expected: Expected | None
) -> dict[str, str]:
    """Give the groups of new samples their sides and return the side of each group; a side once given stays."""
    members: dict[str, list[Sample]] = {}
    for one in {one.row["sha256"]: one for one in reversed(new)}.values():
        members.setdefault(one.row["group_key"], []).append(one)
    sides: dict[str, str] = {}
    for chunk in chunks(members):
        rows = connection.execute(
            select(groups.c.group_key, groups.c.side).where(
                groups.c.project == project.name, groups.c.group_key.in_(chunk)
            )
        )
        sides |= {row.group_key: row.side for row in rows}
    fresh = [_group(key, of_group) for key, of_group in members.items() if key not in sides]
    if not fresh:
        return sides
    good, anomalies = side_counts(connection, project.name)
    given = assign(project.name, fresh, targets=project.subsets, good=good, anomalies=anomalies, expected=expected)
    rows_to_add = [
        {"project": project.name, "group_key": key, "side": side, "origin": origin}
        for key, (side, origin) in given.items()
    ]
    insert_new(connection, groups, rows_to_add)
    return sides | {key: side for key, (side, _) in given.items()}


def _group(key: str, members: Sequence[Sample]) -> NewGroup:
    known = [one.item["known"] for one in sorted(members, key=lambda one: str(one.item["key"]))]
    return NewGroup(
        key,
        size=len(members),
        anomalous=all(one.item["label"] == "anomaly" for one in members),
        split=next((one["split"] for one in known if one["split"]), None),
        asked=next((one["asked"] for one in known if one["asked"]), None),
    )


def _annotate(connection: Connection, project: str, taken: Sequence[Sample], masks: Sequence[Mask]) -> set[str]:
    """Add the annotations that are not there yet; return the hashes of the samples that got one."""
    wanted: dict[tuple[Any, ...], dict[str, Any]] = {}

    def want(
        sha256: str, label: str, kind: str | None, mask_key: str | None, source_key: str, author: str | None = None
    ) -> None:
        row = {"sha256": sha256, "label": label, "type": kind, "mask_key": mask_key, "source_key": source_key}
        wanted[tuple(row.values())] = row | {"project": project, "origin": "inbox", "author": author}

    for one in taken:
        item = one.item
        if item["label"] and not item.get("deliberate"):
            want(one.row["sha256"], item["label"], item["type"], one.mask_key, item["key"], item.get("author"))
    for late in masks:
        item = late.item
        want(item["sha256"], "anomaly", item["type"], late.mask_key, item["image_key"])
    present: set[tuple[Any, ...]] = set()
    for chunk in chunks(sorted({key[0] for key in wanted})):
        found = connection.execute(
            select(
                annotations.c.sha256,
                annotations.c.label,
                annotations.c.type,
                annotations.c.mask_key,
                annotations.c.source_key,
            ).where(
                annotations.c.project == project,
                annotations.c.origin == "inbox",
                annotations.c.sha256.in_(chunk),
            )
        )
        for row in found:
            present.add(tuple(row))
            present.add(
                (*row[:3], None, row[4])
            )  # the same without its mask, which a repeated batch may no longer find
    missing = [row for key, row in wanted.items() if key not in present]
    if missing:
        connection.execute(annotations.insert(), missing)
    return {row["sha256"] for row in missing}


def _enter_rejections(connection: Connection, project: str, run: str, refused: Sequence[Rejection]) -> None:
    for one in refused:
        same = and_(
            rejections.c.project == project,
            rejections.c.source_key == one.item["key"],
            rejections.c.etag == one.item["etag"],
        )
        said = {"reason": one.reason, "rejected_key": one.rejected_key, "rejected_at": now(), "ingest_run": run}
        if not connection.execute(update(rejections).where(same).values(**said)).rowcount:
            connection.execute(
                rejections.insert().values(project=project, source_key=one.item["key"], etag=one.item["etag"], **said)
            )


def _disputed(connection: Connection, project: str, hashes: Iterable[str]) -> set[str]:
    labels = effective_labels(project)
    found: set[str] = set()
    for chunk in chunks(hashes):
        found.update(
            connection.execute(select(labels.c.sha256).where(labels.c.sha256.in_(chunk), labels.c.disputed)).scalars()
        )
    return found


def _outcome(
    one: Sample, row: RowMapping, run: str, added: set[str], sides: dict[str, str], disputed: set[str]
) -> dict[str, Any]:
    sha256 = one.row["sha256"]
    known = one.item["known"]
    if row["ingest_run"] == run and row["source_key"] == one.item["key"]:
        outcome = "accepted"
    else:
        outcome = "annotated" if sha256 in added else "known"
    notes = list(known["notes"])
    asked = known["split"] or known["asked"]
    allowed = ("training", "validation") if asked == "train" else (asked,)
    if asked and row["side"] not in allowed:
        notes.append(f"{asked} was asked for, but its group is in {row['side']} and stays there")
    if sha256 in disputed:
        notes.append("disputed: it came under both labels, and stays out of training until somebody decides")
    return {"key": one.item["key"], "outcome": outcome, "sha256": sha256, "side": row["side"], "notes": notes}
