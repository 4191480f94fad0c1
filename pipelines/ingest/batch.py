"""Work through one batch of the inbox.

Three stages, in this order: every object is checked and what it holds written to S3, by several threads; then the
whole batch is entered in the catalogue; only then do the objects leave the inbox. Killed in any stage, a repeated
batch, or the next run, ends in the same state.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.schema import samples
from pipelines.catalogue.splits import Expected
from pipelines.config.project import Project, load_project
from pipelines.errors import NotFound, StorageError
from pipelines.ingest.commit import enter, find_earlier
from pipelines.ingest.inbox_keys import ingest_prefix
from pipelines.ingest.validate import Checked, check, is_changed
from pipelines.storage.s3 import Storage, read_uri

log = logging.getLogger(__name__)
THREADS = 4
OUTCOMES = ("accepted", "known", "annotated", "rejected", "failed")


def ingest_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Take in the images of one batch as `list_inbox` described it.

    A bad file is refused, and an object that S3 fails to give or take is left in the inbox; neither fails the batch.

    Returns {"uri": of the batch's report, "accepted", "known", "annotated", "rejected", "failed", "waiting": counts}.

    Raises:
        StorageError: S3 failed for every object, or for the batch's own list.
        CatalogueError: the catalogue cannot be used. In both cases trying again is safe.
    """
    content = json.loads(read_uri(batch["uri"]))
    project = load_project(content["project"])
    storage = Storage(project.bucket)
    run = content["run"]
    items = content["items"]
    sizes = _sizes(project.name, (item["sha256"] for item in items if item["kind"] == "mask"))
    checked: list[Checked] = []
    results: list[dict[str, Any]] = []
    for item, outcome in _check_all(items, project, run, sizes):
        if isinstance(outcome, StorageError):
            results.append({"key": item["key"], "outcome": "failed", "reason": str(outcome)})
        elif outcome.unsettled:
            results.append({"key": item["key"], "outcome": "waiting", "reason": "it is still being written"})
        else:
            checked.append(outcome)
    failures = [result for result in results if result["outcome"] == "failed"]
    if failures and len(failures) == len(items):
        raise StorageError(f"S3 failed for all {len(items)} objects of {batch['label']}, first {failures[0]['reason']}")

    results += enter(
        project,
        run,
        [one.sample for one in checked if one.sample],
        [one.mask for one in checked if one.mask],
        [rejection for one in checked for rejection in one.rejections],
        Expected(**content["expected"]),
    )
    if missing := [key for one in checked for key in one.missing]:
        with connect() as connection:
            results += find_earlier(connection, project.name, run, missing)
    _clear((one.done for one in checked), storage)

    counts = Counter(result["outcome"] for result in results)
    key = f"{ingest_prefix(project.name, run)}/batch-{content['index']:04}-report.json"
    uri = storage.put(key, json.dumps({"results": results}).encode(), "application/json")
    log.info("%s: %s", batch["label"], ", ".join(f"{counts[name]} {name}" for name in OUTCOMES))
    return {"uri": uri} | {name: counts[name] for name in (*OUTCOMES, "waiting")}


def _check_all(
    items: list[dict[str, Any]], project: Project, run: str, sizes: dict[str, tuple[int, int]]
) -> Iterator[tuple[dict[str, Any], Checked | StorageError]]:
    def attempt(item: dict[str, Any]) -> Checked | StorageError:
        try:
            return check(item, project, run, sizes)
        except StorageError as error:
            log.warning("%s stays in the inbox: %s", item["key"], error)
            return error

    with ThreadPoolExecutor(THREADS, thread_name_prefix="ingest") as threads:
        yield from zip(items, threads.map(attempt, items), strict=True)


def _sizes(project: str, hashes: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return width and height of the samples with these hashes."""
    with connect() as connection:
        found = connection.execute(
            select(samples.c.sha256, samples.c.width, samples.c.height).where(
                samples.c.project == project, samples.c.sha256.in_(list(hashes))
            )
        )
        return {row.sha256: (row.width, row.height) for row in found}


def _clear(done: Iterable[list[dict[str, Any]]], storage: Storage) -> None:
    """Remove from the inbox what is safe elsewhere, unless another object has taken its place meanwhile."""

    def remove(items: list[dict[str, Any]]) -> None:
        for item in items:
            try:
                if not is_changed(item, storage):
                    storage.delete(item["key"])
            except NotFound:
                continue
            except StorageError as error:  # the next run finds it again and knows its content
                log.warning("%s could not be removed from the inbox: %s", item["key"], error)
                return

    with ThreadPoolExecutor(THREADS, thread_name_prefix="ingest") as threads:
        list(threads.map(remove, done))
