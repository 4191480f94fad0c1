"""Report an ingest run: the outcome of each object and the samples awaiting a decision, as text and in S3."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from pipelines.catalogue import connect
from pipelines.catalogue.database import whole_table_joins
from pipelines.catalogue.samples import annotated, effective_labels
from pipelines.catalogue.schema import annotations, now, samples
from pipelines.config.project import load_project
from pipelines.errors import NotFound, StorageError
from pipelines.ingest.batch import OUTCOMES
from pipelines.ingest.inbox_keys import comparable, inbox_prefix, ingest_prefix
from pipelines.ingest.index_matching import unaccounted
from pipelines.ingest.kept_folders import kept_folders
from pipelines.ingest.name_lists import some
from pipelines.ingest.open_notes import remember
from pipelines.storage.s3 import Storage, read_uri

_SHOWN = 30  # lines per kind in the task's log; the report in S3 holds all
_INDEX_STAYS = timedelta(hours=24)


def report(project: str, run_id: str, batch_results: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    """Summarise the batches of a run, archive index files that are fully processed, and write the report to S3.

    Args:
        project: name of the project.
        run_id: id of the ingest run.
        batch_results: results of `ingest_batch`; None for a batch without a result.

    Returns:
        `uri` of the report; counts `accepted`, `known`, `annotated`, `rejected`, `failed`, `waiting`; `disputed` and
        `unlabelled`, the numbers of all the project's samples that await a decision; `lines` of text for people.
    """
    storage = Storage(load_project(project).bucket)
    prefix = ingest_prefix(project, run_id)
    results = list(_results(batch_results))
    try:
        listing = json.loads(storage.get(f"{prefix}/listing.json"))
    except NotFound:
        listing = {"indexes": [], "waiting": {}, "named": {}, "notes": []}
    counts = Counter(result["outcome"] for result in results)
    disputed, unlabelled = _undecided(project)
    waiting = counts["waiting"] + sum(listing["waiting"].values())
    _put_away_indexes(project, prefix, listing["indexes"], storage)
    read = [index["key"].removeprefix(inbox_prefix(project)) for index in listing["indexes"]]
    remember(storage, project, [*listing["notes"], *_left_out(project, results)], read)

    totals = {name: counts[name] for name in OUTCOMES} | {"waiting": waiting}
    totals |= {"disputed": len(disputed), "unlabelled": unlabelled}
    left = {name: listing[name] for name in ("waiting", "named", "notes")}
    full: dict[str, Any] = {"project": project, "run": run_id} | totals
    full |= {"listing": left, "disputed_samples": disputed, "results": results}
    uri = storage.put(f"{prefix}/report.json", json.dumps(full, indent=1).encode(), "application/json")
    lines = list(_lines(project, totals, results, listing, disputed, uri))
    return {"uri": uri} | totals | {"lines": lines}


def _results(batch_results: Iterable[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    for batch in batch_results:
        if batch:
            yield from json.loads(read_uri(batch["uri"]))["results"]


def _left_out(project: str, results: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line on the images of which something that came with them was left out."""
    prefix = inbox_prefix(project)
    left_out = [
        f"{result['key'].removeprefix(prefix)} ({note})"
        for result in results
        for note in result.get("notes", ())
        if "left out" in note
    ]
    if left_out:
        yield f"left out of what came with images, {len(left_out)} in all: {some(left_out, 10)}"


def _undecided(project: str) -> tuple[list[dict[str, Any]], int]:
    """Return the disputed samples with their annotations, and the number of unlabelled ones."""
    labels = effective_labels(project)
    here = (samples.c.project == project, samples.c.withdrawn_at.is_(None))
    with connect() as connection, whole_table_joins(connection):
        rows = connection.execute(
            select(samples.c.sha256, annotations.c.label, annotations.c.source_key)
            .join(labels, labels.c.sha256 == samples.c.sha256)
            .join(annotations, annotations.c.sha256 == samples.c.sha256)
            .where(*here, labels.c.disputed, annotations.c.project == project)
            .order_by(annotations.c.id)
        )
        disputed: dict[str, list[str]] = {}
        for row in rows:
            disputed.setdefault(row.sha256, []).append(f"{row.label}: {row.source_key}")
        unlabelled = connection.execute(
            select(func.count()).select_from(samples).where(*here, ~annotated(project))
        ).scalar_one()
    return [{"sha256": sha256, "said": said} for sha256, said in disputed.items()], unlabelled


def _put_away_indexes(project: str, prefix: str, indexes: list[dict[str, Any]], storage: Storage) -> None:
    """Archive index files whose images are all accounted for, or that are over a day old with no image in the inbox."""
    inbox = inbox_prefix(project)
    present = {comparable(item.key) for item in storage.list(inbox)} if indexes else set()
    for index in indexes:
        key = index["key"]
        try:
            if storage.stat(key).etag != index["etag"]:  # replaced since this run read it
                continue
            age = now() - datetime.fromisoformat(index["since"])
            old = age > _INDEX_STAYS and present.isdisjoint(index["files"])
            if old or not unaccounted(project, index["files"]):
                storage.copy(key, f"{prefix}/index/{key.removeprefix(inbox)}")
                with kept_folders(storage, project, [key]):
                    storage.delete(key)
        except StorageError:  # left for the next run; NotFound: already gone
            continue


def _lines(
    project: str,
    totals: dict[str, int],
    results: list[dict[str, Any]],
    listing: dict[str, Any],
    disputed: list[dict[str, Any]],
    uri: str,
) -> Iterator[str]:
    """Yield the report as lines of text for people."""
    prefix = inbox_prefix(project)
    if not any(totals[name] for name in (*OUTCOMES, "waiting")):
        yield f"{project}: nothing new in the inbox"
    else:
        counts = ", ".join(f"{totals[name]} {name}" for name in (*OUTCOMES, "waiting") if totals[name])
        yield f"{project}: {counts}"
    for kind in ("rejected", "failed", "waiting"):
        of_kind = [result for result in results if result["outcome"] == kind]
        yield from _some(
            (f"{kind} {result['key'].removeprefix(prefix)}: {result['reason']}" for result in of_kind), uri
        )
    for why, count in listing["waiting"].items():
        named = listing.get("named", {}).get(why, [])
        yield f"waiting: {count}, {why}{f': {some(named)}' if named else ''}"
    yield from _some((f"index: {note}" for note in listing["notes"]), uri)
    notes = ((result["key"].removeprefix(prefix), note) for result in results for note in result.get("notes", ()))
    yield from _some((f"note {key}: {note}" for key, note in notes if not note.startswith("disputed")), uri)
    disputes = (f"disputed {sample['sha256'][:12]} ({'; '.join(sample['said'])})" for sample in disputed)
    yield from _some((f"{line}: python -m pipelines.datasets decide decides" for line in disputes), uri)
    if totals["unlabelled"]:
        yield f"{totals['unlabelled']} samples have no label yet and stay out of training"


def _some(lines: Iterable[str], uri: str) -> Iterator[str]:
    """Yield the first `_SHOWN` lines, then the number of those left out."""
    every = list(lines)
    yield from every[:_SHOWN]
    if len(every) > _SHOWN:
        yield f"… and {len(every) - _SHOWN} more of these, all in {uri}"
