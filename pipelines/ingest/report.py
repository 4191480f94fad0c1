"""The report of an ingest run: what became of each object, what waits for a decision, readable and in S3."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.database import chunks
from pipelines.catalogue.samples import effective_labels
from pipelines.catalogue.schema import annotations, now, rejections, samples
from pipelines.config.project import load_project
from pipelines.errors import NotFound, StorageError
from pipelines.ingest.batch import OUTCOMES
from pipelines.ingest.inbox_keys import inbox_prefix, ingest_prefix
from pipelines.storage.s3 import Storage, read_uri

_SHOWN = 30  # lines of one kind in the task's log; the rest is in the report's file
_INDEX_STAYS = timedelta(hours=24)


def report(project: str, run_id: str, batch_results: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    """Sum up the batches of a run, put away the index files that are used up, and write the report to S3.

    `disputed` and `unlabelled` count the project's samples that wait for somebody's decision, from this run or before.

    Returns {"uri", "accepted", "known", "annotated", "rejected", "failed", "waiting", "disputed", "unlabelled",
    "lines"}, the lines for people.
    """
    storage = Storage(load_project(project).bucket)
    prefix = ingest_prefix(project, run_id)
    results = list(_results(batch_results))
    try:
        listing = json.loads(storage.get(f"{prefix}/listing.json"))
    except NotFound:
        listing = {"indexes": [], "waiting": {}, "notes": []}
    counts = Counter(result["outcome"] for result in results)
    disputed, unlabelled = _undecided(project)
    waiting = counts["waiting"] + sum(listing["waiting"].values())
    _put_away_indexes(project, prefix, listing["indexes"], storage)

    totals = {name: counts[name] for name in OUTCOMES} | {"waiting": waiting}
    totals |= {"disputed": len(disputed), "unlabelled": unlabelled}
    left = {"waiting": listing["waiting"], "notes": listing["notes"]}
    full: dict[str, Any] = {"project": project, "run": run_id} | totals
    full |= {"listing": left, "disputed_samples": disputed, "results": results}
    uri = storage.put(f"{prefix}/report.json", json.dumps(full, indent=1).encode(), "application/json")
    lines = list(_lines(project, totals, results, listing, disputed, uri))
    return {"uri": uri} | totals | {"lines": lines}


def _results(batch_results: Iterable[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    for batch in batch_results:
        if batch:
            yield from json.loads(read_uri(batch["uri"]))["results"]


def _undecided(project: str) -> tuple[list[dict[str, Any]], int]:
    """Return the disputed samples with what was said of each, and count the unlabelled ones."""
    labels = effective_labels(project)
    here = (samples.c.project == project, samples.c.withdrawn_at.is_(None))
    with connect() as connection:
        said = connection.execute(
            select(samples.c.sha256, annotations.c.label, annotations.c.source_key)
            .join(labels, labels.c.sha256 == samples.c.sha256)
            .join(annotations, annotations.c.sha256 == samples.c.sha256)
            .where(*here, labels.c.disputed, annotations.c.project == project)
            .order_by(annotations.c.id)
        )
        disputed: dict[str, list[str]] = {}
        for row in said:
            disputed.setdefault(row.sha256, []).append(f"{row.label}: {row.source_key}")
        unlabelled = connection.execute(
            select(samples.c.id)
            .outerjoin(labels, labels.c.sha256 == samples.c.sha256)
            .where(*here, labels.c.sha256.is_(None))
        ).all()
    return [{"sha256": sha256, "said": said} for sha256, said in disputed.items()], len(unlabelled)


def _put_away_indexes(project: str, prefix: str, indexes: list[dict[str, Any]], storage: Storage) -> None:
    """Move index files out of the inbox once every file they name is accounted for, or a day old with none to come."""
    for index in indexes:
        key = index["key"]
        try:
            present = storage.stat(key)
            if present.etag != index["etag"]:  # a newer one, not read by this run
                continue
            old = now() - present.modified > _INDEX_STAYS and not any(map(storage.exists, index["files"]))
            if old or _accounted(project, index["files"]):
                path = key.removeprefix(inbox_prefix(project))
                storage.copy(key, f"{prefix}/index/{path}")
                storage.delete(key)
        except StorageError:  # it stays for the next run; NotFound: it is gone
            continue


def _accounted(project: str, files: list[str]) -> bool:
    """Tell whether the catalogue knows what became of every one of these inbox keys."""
    missing = set(files)
    with connect() as connection:
        for chunk in chunks(files):
            for table in (samples, annotations, rejections):
                known = select(table.c.source_key).where(table.c.project == project, table.c.source_key.in_(chunk))
                missing.difference_update(connection.execute(known).scalars())
    return not missing


def _lines(
    project: str,
    totals: dict[str, int],
    results: list[dict[str, Any]],
    listing: dict[str, Any],
    disputed: list[dict[str, Any]],
    uri: str,
) -> Iterator[str]:
    """Yield the report as people read it."""
    prefix = inbox_prefix(project)
    if not any(totals[name] for name in (*OUTCOMES, "waiting")):
        yield f"{project}: nothing new in the inbox"
    else:
        said = ", ".join(f"{totals[name]} {name}" for name in (*OUTCOMES, "waiting") if totals[name])
        yield f"{project}: {said}"
    for kind in ("rejected", "failed", "waiting"):
        of_kind = [result for result in results if result["outcome"] == kind]
        yield from _some((f"{kind} {one['key'].removeprefix(prefix)}: {one['reason']}" for one in of_kind), uri)
    yield from (f"waiting: {count}, {why}" for why, count in listing["waiting"].items())
    yield from _some((f"index: {note}" for note in listing["notes"]), uri)
    notes = ((one["key"].removeprefix(prefix), note) for one in results for note in one.get("notes", ()))
    yield from _some((f"note {key}: {note}" for key, note in notes if not note.startswith("disputed")), uri)
    told = (f"disputed {one['sha256'][:12]} ({'; '.join(one['said'])})" for one in disputed)
    yield from _some((f"{line}: python -m pipelines.datasets decide decides" for line in told), uri)
    if totals["unlabelled"]:
        yield f"{totals['unlabelled']} samples have no label yet and stay out of training"


def _some(lines: Iterable[str], uri: str) -> Iterator[str]:
    """Yield the first lines of a kind, and say how many more there are."""
    every = list(lines)
    yield from every[:_SHOWN]
    if len(every) > _SHOWN:
        yield f"… and {len(every) - _SHOWN} more of these, all in {uri}"
