"""Process one batch of the inbox.

In three stages: objects are validated and stored in S3 by several threads, the whole batch is committed to the
catalogue, and only then are the objects deleted from the inbox. A batch killed in any stage reaches the same final
state when it is repeated, by a retry or by the next run.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.bit_depth import with_project_bits
from pipelines.catalogue.schema import samples
from pipelines.catalogue.splits import Expected
from pipelines.config.project import Project, load_project
from pipelines.errors import NotFound, StorageError
from pipelines.ingest.commit import enter, find_earlier
from pipelines.ingest.inbox_keys import ingest_prefix
from pipelines.ingest.items import InboxItem
from pipelines.ingest.kept_folders import kept_folders
from pipelines.ingest.validate import Checked, MaskedImage, check, is_changed
from pipelines.storage.s3 import Storage, read_uri

log = logging.getLogger(__name__)
THREADS = 4
OUTCOMES = ("accepted", "known", "annotated", "rejected", "failed")


def ingest_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Ingest one batch as returned by `list_inbox`.

    Invalid files are rejected, and objects that S3 fails to read or write stay in the inbox; neither fails the batch.

    Returns:
        `uri` of the batch's report, and the counts of `accepted`, `known`, `annotated`, `rejected`, `failed` and
        `waiting` objects.

    Raises:
        StorageError: S3 failed for every object, or for the batch's own list. A retry is safe.
        CatalogueError: the catalogue is unavailable. A retry is safe.
    """
    content = json.loads(read_uri(batch["uri"]))
    with connect() as connection:
        project = with_project_bits(connection, load_project(content["project"]))
    storage = Storage(project.bucket)
    run = content["run"]
    items = [InboxItem.from_json(item) for item in content["items"]]
    masked = _masked(project.name, (str(item.sha256) for item in items if item.kind in ("mask", "regions")))
    checked: list[Checked] = []
    results: list[dict[str, Any]] = []
    for item, outcome in _check_all(items, project, run, masked):
        if isinstance(outcome, StorageError):
            results.append({"key": item.key, "outcome": "failed", "reason": str(outcome)})
        elif outcome.unsettled:
            results.append({"key": item.key, "outcome": "waiting", "reason": "it is still being written"})
        else:
            checked.append(outcome)
    failures = [result for result in results if result["outcome"] == "failed"]
    if failures and len(failures) == len(items):
        raise StorageError(f"S3 failed for all {len(items)} objects of {batch['label']}, first {failures[0]['reason']}")

    results += enter(
        project,
        run,
        [checked_item.sample for checked_item in checked if checked_item.sample],
        [checked_item.mask for checked_item in checked if checked_item.mask],
        [rejection for checked_item in checked for rejection in checked_item.rejections],
        Expected(**content["expected"]),
    )
    if missing := [key for checked_item in checked for key in checked_item.missing]:
        with connect() as connection:
            results += find_earlier(connection, project.name, run, missing)
    _clear([checked_item.done for checked_item in checked], storage, project.name)

    counts = Counter(result["outcome"] for result in results)
    key = f"{ingest_prefix(project.name, run)}/batch-{content['index']:04}-report.json"
    uri = storage.put(key, json.dumps({"results": results}).encode(), "application/json")
    log.info("%s: %s", batch["label"], ", ".join(f"{counts[name]} {name}" for name in OUTCOMES))
    return {"uri": uri} | {name: counts[name] for name in (*OUTCOMES, "waiting")}


def _check_all(
    items: list[InboxItem], project: Project, run: str, masked: dict[str, MaskedImage]
) -> Iterator[tuple[InboxItem, Checked | StorageError]]:
    def attempt(item: InboxItem) -> Checked | StorageError:
        try:
            return check(item, project, run, masked)
        except StorageError as error:
            log.warning("%s stays in the inbox: %s", item.key, error)
            return error

    with ThreadPoolExecutor(THREADS, thread_name_prefix="ingest") as threads:
        yield from zip(items, threads.map(attempt, items), strict=True)


def _masked(project: str, hashes: Iterable[str]) -> dict[str, MaskedImage]:
    """Return the samples with these hashes."""
    with connect() as connection:
        rows = connection.execute(
            select(samples.c.sha256, samples.c.width, samples.c.height, samples.c.key).where(
                samples.c.project == project, samples.c.sha256.in_(list(hashes))
            )
        )
        return {row.sha256: MaskedImage(row.width, row.height, row.key) for row in rows}


def _clear(done: Sequence[list[InboxItem]], storage: Storage, project: str) -> None:
    """Delete processed objects from the inbox, except those that have been overwritten meanwhile; folders stay."""

    def remove(items: list[InboxItem]) -> None:
        for item in items:
            try:
                if not is_changed(item, storage):
                    storage.delete(item.key)
            except NotFound:
                continue
            except StorageError as error:  # the next run lists it again and recognises its content
                log.warning("%s could not be removed from the inbox: %s", item.key, error)
                return

    with (
        kept_folders(storage, project, (item.key for items in done for item in items)),
        ThreadPoolExecutor(THREADS, thread_name_prefix="ingest") as threads,
    ):
        list(threads.map(remove, done))
