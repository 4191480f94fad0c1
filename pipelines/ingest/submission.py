"""Ingest one image posted to serving, together with the request for a run that uses it.

The image passes through the inbox like any other, beside an index.csv with the sender's metadata, so that the next
ingest completes a submission that was interrupted. Sample and request are inserted in one transaction. Repeated
submissions are idempotent.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, and_, select

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.bit_depth import with_project_bits
from pipelines.catalogue.database import lock_project
from pipelines.catalogue.requests import ask_once
from pipelines.catalogue.samples import ANOMALY_SUBSETS, classes_of, effective_labels
from pipelines.catalogue.schema import groups, samples
from pipelines.config.class_names import BadClass, class_name, spelt_otherwise
from pipelines.config.project import Project
from pipelines.errors import InspectlineError, StorageError
from pipelines.images.decode import CONTENT_TYPES
from pipelines.ingest.commit import enter_in
from pipelines.ingest.inbox_classes import spelling_fault
from pipelines.ingest.inbox_keys import INDEX, comparable, inbox_prefix, read_path
from pipelines.ingest.index_csv import FileMetadata, Index, describe
from pipelines.ingest.items import InboxItem
from pipelines.ingest.kept_folders import kept_folders
from pipelines.ingest.validate import make_safe, open_sample
from pipelines.storage.s3 import Storage

log = logging.getLogger(__name__)


class BadName(InspectlineError):
    """A type of anomaly that is not a valid folder name in the inbox, or a label that the project cannot have."""


@dataclass(frozen=True)
class Posted:
    """An image and its sender's metadata.

    Attributes:
        data: the encoded image.
        label: good or anomaly, or a class.
        type: type of the anomaly. Default None.
        subset: requested side. Default None.
        name: the sender's file name. Default empty.
        group: group of the sample. Default None.
        author: name of the sender's account. Default None.
    """

    data: bytes = field(repr=False)
    label: str
    type: str | None = None
    subset: str | None = None
    name: str = ""
    group: str | None = None
    author: str | None = None


def take_in(project: Project, posted: Posted, kind: str) -> tuple[int, dict[str, Any]]:
    """Insert the image as a sample, in the requested subset unless its group has another, and request a run of `kind`.

    Returns:
        The request's id, and the state of the sample: `sha256`, `known` (whether it existed before), `subset`,
        effective `label` (None: disputed), `state` (`temp`, `trained` or `withdrawn`), `notes`.

    Raises:
        BadImage, BadName: the submission is invalid and nothing was stored; the message is for the sender.
        StorageError, CatalogueError: a store is unavailable and nothing was inserted; a retry is safe.
    """
    with connect() as connection:  # also fails before anything is written to S3 if the catalogue is unavailable
        project = with_project_bits(connection, project)
        connection.execute(select(samples.c.id).limit(1))
        posted = checked_label(connection, project, posted)
    image = open_sample(posted.data, project)
    sha256 = hashlib.sha256(posted.data).hexdigest()
    metadata = metadata_of(project, posted, sha256)
    folder = f"{inbox_prefix(project.name)}{folder_of(posted.label, posted.type, project.task)}/posted/{sha256}"
    file = f"{sha256}.{image.extension}"
    item = InboxItem(
        "image",
        f"{folder}/{file}",
        label=posted.label,
        type=posted.type,
        known=metadata,
        author=posted.author,
    )
    run = f"posted {secrets.token_hex(8)}"
    with _inbox(Storage(project.bucket), project.name, folder) as put:
        put(INDEX, _index(file, metadata), "text/csv")
        put(file, posted.data, CONTENT_TYPES[image.format])
        sample = make_safe(posted.data, image, item, project, run)
        with transaction() as connection:
            lock_project(connection, project.name)
            (result,) = enter_in(connection, project, run, [sample])
            outcome = sample_now(connection, project.name, sha256, posted.label)
            outcome["known"] = result["outcome"] != "accepted"
            outcome["notes"] = [*result["notes"], *outcome["notes"]]
            request = ask_once(connection, project.name, kind, posted.author, outcome)
    return request, outcome


def checked_label(connection: Connection, project: Project, posted: Posted) -> Posted:
    """Return what was posted with its label as the project has it: of a classifier, the name of a class, no type.

    Raises:
        BadName: it is no name of a class, or differs only in spelling from a class that the project has.
    """
    if project.task != "classification":
        return posted
    try:
        label = class_name(posted.label)
    except BadClass as error:
        raise BadName(str(error)) from None
    if other := spelt_otherwise(label, classes_of(connection, project.name)):
        raise BadName(spelling_fault(label, other))
    return replace(posted, label=label, type=None)


def folder_of(label: str, kind: str | None, task: str = "anomaly") -> str:
    """Return the inbox folder of a label and type, of a project with `task` (default anomaly).

    Raises:
        BadName: the type is not a valid folder name.
    """
    if task == "classification":  # the class travels in an index.csv, since not every name can be that of a folder
        return "unlabelled"
    if label == "good":
        return "good"
    # anomaly/anomaly/ is equivalent to anomaly/: objects below it have no type.
    folder = f"anomaly/{kind or 'anomaly'}"
    place = read_path(f"{folder}/name.png")
    if place.fault or place.type != (None if kind in (None, "anomaly") else kind) or len(kind or "") > 100:
        raise BadName(f"type {str(kind)[:100]!r} cannot be kept: write a short word without slashes")
    return folder


def metadata_of(project: Project, posted: Posted, sha256: str) -> FileMetadata:
    """Return the sender's metadata as from an index.csv, with the project's group rule applied to the file name."""
    name = posted.name.replace("\\", "/").rpartition("/")[2] or sha256
    path = f"{folder_of(posted.label, posted.type, project.task)}/{name}"
    row = {"group": posted.group or "", "subset": posted.subset or "", "label": posted.label}
    metadata = describe(path, [Index("", {comparable(path): row})], project)
    # A classifier's images without a group find their own by perceptual hash.
    return metadata if project.task == "classification" else replace(metadata, group=metadata.group or sha256)


def sample_now(connection: Connection, project: str, sha256: str, label: str) -> dict[str, Any]:
    """Return the state of a sample just submitted with `label`.

    Returns:
        `sha256`, `subset`, effective `label` (None: disputed), `state` (temp, trained, withdrawn) and `notes`.
    """
    labels = effective_labels(project, [sha256])
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
    if row.label and row.label != label:
        notes.append(f"somebody decided that it is {row.label}, and that holds until POST /annotations decides anew")
    subset = ANOMALY_SUBSETS[row.side] if (row.label or label) == "anomaly" else row.side
    return {"sha256": sha256, "subset": subset, "label": row.label, "state": state, "notes": notes}


def _index(file: str, metadata: FileMetadata) -> bytes:
    """Return the content of an index.csv for one file."""
    lines = io.StringIO()
    values = {"file": file, "subset": metadata.asked, "group": metadata.group, "label": metadata.label}
    if metadata.label is None:
        del values["label"]
    csv.writer(lines).writerows([list(values), [value or "" for value in values.values()]])
    return lines.getvalue().encode()


@contextmanager
def _inbox(storage: Storage, project: str, folder: str) -> Iterator[Callable[[str, bytes, str], None]]:
    """Yield a function that writes files to a folder of the inbox; they are deleted on exit, whatever the outcome."""
    placed: list[str] = []

    def put(name: str, data: bytes, content_type: str) -> None:
        storage.put(f"{folder}/{name}", data, content_type)
        placed.append(f"{folder}/{name}")

    try:
        yield put
    finally:
        try:
            with kept_folders(storage, project, placed):
                for key in reversed(placed):  # the image before its index.csv
                    storage.delete(key)
        except StorageError as error:
            log.warning("%s stays in the inbox until the next ingest: %s", folder, error)
