"""Takes in one image that somebody sent to serving, with the request for the run that is to see it.

The same road as the inbox's, and through it: the image is put into the inbox first, beside it an index.csv that says
what the sender said, so that whatever is cut off halfway is found and ended by the next ingest. Sample and request are
entered in one transaction. Sent again, nothing is doubled.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, and_, select

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.database import lock_project
from pipelines.catalogue.requests import ask_once
from pipelines.catalogue.samples import ANOMALY_SUBSETS, effective_labels
from pipelines.catalogue.schema import groups, samples
from pipelines.config.project import Project
from pipelines.errors import InspectlineError, StorageError
from pipelines.images.decode import CONTENT_TYPES, open_image
from pipelines.ingest.commit import enter_in
from pipelines.ingest.inbox_keys import INDEX, inbox_prefix, read_path
from pipelines.ingest.index_csv import Index, Known, describe
from pipelines.ingest.validate import make_safe
from pipelines.storage.s3 import Storage

log = logging.getLogger(__name__)


class BadName(InspectlineError):
    """A type of anomaly that no folder of the inbox could have."""


@dataclass(frozen=True)
class Posted:
    """An image and what its sender says of it.

    `label` is good or anomaly, `subset` the side asked for, `name` what the sender calls the file.
    """

    data: bytes = field(repr=False)
    label: str
    type: str | None = None
    subset: str | None = None
    name: str = ""
    group: str | None = None
    author: str | None = None


def take_in(project: Project, posted: Posted, kind: str) -> tuple[int, dict[str, Any]]:
    """Enter the image as a sample, in the subset asked for unless its group is elsewhere, and ask for a run of `kind`.

    Returns the request's id and what became of the sample: `sha256`, `known` (it was one before), `subset`, `label` as
    it holds now (None: disputed), `state` (`temp`, `trained` or `withdrawn`), `notes`.

    Raises:
        BadImage, BadName: nothing was stored; the message is for the sender.
        StorageError, CatalogueError: nothing was entered; trying again is safe.
    """
    image = open_image(posted.data, max_pixels=project.image.max_pixels, min_side=project.image.min_side)
    sha256 = hashlib.sha256(posted.data).hexdigest()
    known = known_of(project, posted, sha256)
    folder = f"{inbox_prefix(project.name)}{folder_of(posted.label, posted.type)}/posted/{sha256}"
    file = f"{sha256}.{image.extension}"
    item = {"key": f"{folder}/{file}", "label": posted.label, "type": posted.type, "known": asdict(known)}
    run = f"posted {secrets.token_hex(8)}"
    with connect() as connection:  # S3 is to hear of nothing that the catalogue cannot take now
        connection.execute(select(samples.c.id).limit(1))
    with _inbox(Storage(project.bucket), folder) as put:
        put(INDEX, _index(file, known), "text/csv")
        put(file, posted.data, CONTENT_TYPES[image.format])
        sample = make_safe(posted.data, image, item | {"author": posted.author}, project, run)
        with transaction() as connection:
            lock_project(connection, project.name)
            (result,) = enter_in(connection, project, run, [sample])
            told = sample_now(connection, project.name, sha256, posted.label)
            told["known"] = result["outcome"] != "accepted"
            told["notes"] = [*result["notes"], *told["notes"]]
            request = ask_once(connection, project.name, kind, posted.author, told)
    return request, told


def folder_of(label: str, kind: str | None) -> str:
    """Return the inbox folder of a label and type.

    Raises:
        BadName: the type would be no folder's name.
    """
    if label == "good":
        return "good"
    # A folder anomaly/anomaly says no more than anomaly/: what is below it has no type.
    folder = f"anomaly/{kind or 'anomaly'}"
    place = read_path(f"{folder}/name.png")
    if place.fault or place.type != (None if kind in (None, "anomaly") else kind) or len(kind or "") > 100:
        raise BadName(f"type {str(kind)[:100]!r} cannot be kept: write a short word without slashes")
    return folder


def known_of(project: Project, posted: Posted, sha256: str) -> Known:
    """Return what the sender and the project's group rule, on the file name, say: what an index.csv would have said."""
    name = posted.name.replace("\\", "/").rpartition("/")[2] or sha256
    path = f"{folder_of(posted.label, posted.type)}/{name}"
    row = {"group": posted.group or "", "subset": posted.subset or ""}
    known = describe(path, [Index("", {path: row})], project)
    return replace(known, group=known.group or sha256)


def sample_now(connection: Connection, project: str, sha256: str, said: str) -> dict[str, Any]:
    """Return what the catalogue says of a sample of which somebody `said` good or anomaly.

    These are `sha256`, `subset`, `label` (None: disputed), `state` (temp, trained, withdrawn) and `notes`.
    """
    labels = effective_labels(project)
    row = connection.execute(
        select(samples.c.trained_version, samples.c.withdrawn_at, groups.c.side, labels.c.label)
        .join(groups, and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key))
        .outerjoin(labels, labels.c.sha256 == samples.c.sha256)
        .where(samples.c.project == project, samples.c.sha256 == sha256)
    ).one()
    state = "withdrawn" if row.withdrawn_at else "trained" if row.trained_version else "temp"
    notes = []
    if row.withdrawn_at:
        notes.append("it was withdrawn, and stays out of training")
    if row.label and row.label != said:
        notes.append(f"somebody decided that it is {row.label}, and that holds until POST /annotations decides anew")
    subset = row.side if (row.label or said) == "good" else ANOMALY_SUBSETS[row.side]
    return {"sha256": sha256, "subset": subset, "label": row.label, "state": state, "notes": notes}


def _index(file: str, known: Known) -> bytes:
    """Return the index.csv of one file."""
    lines = io.StringIO()
    csv.writer(lines).writerows([["file", "subset", "group"], [file, known.asked or "", known.group or ""]])
    return lines.getvalue().encode()


@contextmanager
def _inbox(storage: Storage, folder: str) -> Iterator[Callable[[str, bytes, str], None]]:
    """Give what puts files into a folder of the inbox; at the end they are a sample, or were never sent: they go."""
    placed: list[str] = []

    def put(name: str, data: bytes, content_type: str) -> None:
        storage.put(f"{folder}/{name}", data, content_type)
        placed.append(f"{folder}/{name}")

    try:
        yield put
    finally:
        for key in reversed(placed):  # the image before what is said of it
            try:
                storage.delete(key)
            except StorageError as error:
                log.warning("%s stays in the inbox until the next ingest: %s", key, error)
                break
