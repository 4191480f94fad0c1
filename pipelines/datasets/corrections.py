"""Corrects what serving said of an image: the image becomes a sample, what somebody says of it an annotation.

An annotation of origin `serving` outweighs what the inbox says; the latest holds, and none is ever overwritten. The
next dataset version has it. What a classifier is certain of becomes a proposed annotation, which holds until somebody
says what the image shows.
"""

import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, case, select

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.annotations import DELIBERATE, PROPOSED, latest
from pipelines.catalogue.bit_depth import with_project_bits
from pipelines.catalogue.database import chunks, lock_project
from pipelines.catalogue.schema import annotations, groups, now, predictions, samples
from pipelines.config.project import Project
from pipelines.errors import BadImage, InspectlineError, NotFound
from pipelines.images.decode import read_orientation
from pipelines.ingest.commit import enter_in
from pipelines.ingest.items import InboxItem
from pipelines.ingest.submission import Posted, checked_label, folder_of, metadata_of, sample_now
from pipelines.ingest.validate import Sample, StoredMask, make_safe, open_sample, store_mask
from pipelines.storage.s3 import Storage

_log = logging.getLogger(__name__)


class NoSuchPrediction(InspectlineError):
    """Nothing was predicted under that id, or for that image."""


class ImageGone(InspectlineError):
    """A served image was kept for its time, and is not there any more."""


def sha256_of(project: str, request_id: str) -> str:
    """Return the SHA-256 of the image that was judged under `request_id`.

    Raises:
        NoSuchPrediction: there is none.
    """
    with connect() as connection:
        sha256 = connection.execute(
            select(predictions.c.sha256).where(predictions.c.project == project, predictions.c.request_id == request_id)
        ).scalar()
    if sha256 is None:
        raise NoSuchPrediction(f"{project} has no prediction {request_id!r}: give the request_id of an answer")
    return str(sha256)


def annotate(project: Project, sha256: str, posted: Posted, mask: bytes | None = None) -> dict[str, Any]:
    """Enter what somebody `said` of the image `sha256`, which is a sample already or was served.

    `said` holds label, type, group and author; its data are not looked at. Said again, it is entered once.

    Returns `annotation` (its id), `created_at`, `added` (it says something new), and what `sample_now` says.

    Raises:
        BadImage, BadName: the mask or the type cannot be used.
        NoSuchPrediction, ImageGone: there is no such image, or not any more.
        StorageError, CatalogueError: nothing was entered; trying again is safe.
    """
    folder_of(posted.label, posted.type, project.task)  # a type must be one that the inbox could have, too
    with connect() as connection:
        posted = checked_label(connection, project, posted)
        project = with_project_bits(connection, project)
        row = _first(connection, select(samples).where(samples.c.project == project.name, samples.c.sha256 == sha256))
        served = None if row else _served(connection, project.name, sha256)
    run = f"annotated {secrets.token_hex(8)}"
    taken = [_taken(project, served, posted, run)] if served else []
    stored = _store_mask(project, mask, row or taken[0].row) if mask else None
    with transaction() as connection:
        lock_project(connection, project.name)
        results = enter_in(connection, project, run, taken)
        entered, added = _enter(connection, project.name, sha256, posted, stored.key if stored else None)
        state = sample_now(connection, project.name, sha256, posted.label)
    of_mask = stored.notes if stored else []
    state["notes"] = [*(note for result in results for note in result["notes"]), *of_mask, *state["notes"]]
    return {"annotation": entered["id"], "created_at": entered["created_at"], "added": added} | state


def propose(project: Project, served: Sequence[tuple[Mapping[str, Any], bytes]]) -> int:
    """Enter proposed annotations for predictions above `annotation.propose_above`; return how many are new.

    An image that anybody has annotated gets none, nor one whose group is for validation or test. Repeated, it enters
    nothing twice.

    Args:
        project: the project.
        served: predictions as rows of the catalogue, each with its image.

    Raises:
        StorageError, CatalogueError: nothing was entered; trying again is safe.
    """
    above = project.annotation.propose_above
    if above is None:
        return 0
    certain = {row["sha256"]: (row, data) for row, data in served if row["answer"] and row["score"] > above}
    if not certain:
        return 0
    with connect() as connection:
        project = with_project_bits(connection, project)
        open_to = _proposable(connection, project.name, certain)
        known = _sides(connection, project.name, open_to)
    run = f"proposed {secrets.token_hex(8)}"
    taken = [
        sample for sha256 in open_to if sha256 not in known and (sample := _proposed(project, *certain[sha256], run))
    ]
    with transaction() as connection:
        lock_project(connection, project.name)
        enter_in(connection, project, run, taken)
        sides = _sides(connection, project.name, open_to)
        rows = [
            {
                "project": project.name,
                "sha256": sha256,
                "label": certain[sha256][0]["answer"]["class"],
                "origin": PROPOSED,
                "author": _proposer(certain[sha256][0]),
                "created_at": now(),
            }
            for sha256 in _proposable(connection, project.name, certain)
            if sides.get(sha256) == "training"
        ]
        if rows:
            connection.execute(annotations.insert(), rows)
    return len(rows)


def _proposable(
    connection: Connection, project: str, certain: Mapping[str, tuple[Mapping[str, Any], bytes]]
) -> list[str]:
    """Return the images that nobody has annotated, and that no version has proposed the same class for."""
    said = latest(connection, project, certain)
    return [
        sha256
        for sha256, (row, _) in certain.items()
        if sha256 not in said
        or (said[sha256]["origin"] == PROPOSED and said[sha256]["label"] != row["answer"]["class"])
    ]


def _sides(connection: Connection, project: str, hashes: Sequence[str]) -> dict[str, str]:
    """Return the sides of those images that are samples and not withdrawn, by SHA-256; the others are left out."""
    sides: dict[str, str] = {}
    of_group = and_(groups.c.project == samples.c.project, groups.c.group_key == samples.c.group_key)
    for chunk in chunks(hashes):
        rows = connection.execute(
            select(samples.c.sha256, case((samples.c.withdrawn_at.is_(None), groups.c.side), else_="withdrawn"))
            .join(groups, of_group)
            .where(samples.c.project == project, samples.c.sha256.in_(chunk))
        )
        sides |= {row[0]: row[1] for row in rows}
    return sides


def _proposed(project: Project, served: Mapping[str, Any], data: bytes, run: str) -> Sample | None:
    """Make a served image safe as a sample for training; None if it cannot be one."""
    posted = Posted(b"", served["answer"]["class"], subset="training", author=_proposer(served))
    try:
        return _as_sample(project, served, data, posted, run)
    except BadImage as error:
        _log.warning("no annotation is proposed for %s: %s", served["sha256"][:12], error)
        return None


def _proposer(served: Mapping[str, Any]) -> str:
    return f"version {served['model_version']}"


def _served(connection: Connection, project: str, sha256: str) -> RowMapping:
    """Return the latest prediction of an image that is still kept."""
    of_image = (predictions.c.project == project, predictions.c.sha256 == sha256)
    kept = _first(
        connection,
        select(predictions)
        .where(*of_image, predictions.c.image_key.is_not(None))
        .order_by(predictions.c.created_at.desc()),
    )
    if kept is not None:
        return kept
    if _first(connection, select(predictions.c.id).where(*of_image)) is None:
        raise NoSuchPrediction(f"{project} has neither judged nor kept an image {sha256[:12]}…: send it to /predict")
    raise ImageGone(f"the image {sha256[:12]}… was served, but its time is over: send it to /retrain or /anomaly")


def _taken(project: Project, served: RowMapping, posted: Posted, run: str) -> Sample:
    """Make a served image safe as a sample."""
    key = served["image_key"]
    try:
        data = Storage(project.bucket).get(key)
    except NotFound:
        raise ImageGone(f"the image {key} is not there any more: send it to /retrain or /anomaly") from None
    return _as_sample(project, served, data, posted, run)


def _as_sample(
    project: Project, served: Mapping[str, Any] | RowMapping, data: bytes, posted: Posted, run: str
) -> Sample:
    # It was judged under rules that may have become stricter since: what was served can be annotated.
    pixels = max(project.image.max_pixels, served["width"] * served["height"])
    rules = project.image.model_copy(update={"max_pixels": pixels, "min_side": 1})
    image = open_sample(data, project.model_copy(update={"image": rules}))
    source = served["source"] or ""
    named = replace(posted, name="" if source == "upload" else source)
    known = metadata_of(project, named, hashlib.sha256(data).hexdigest())
    key = served["image_key"]
    item = InboxItem("image", key, label=posted.label, type=posted.type, known=known, deliberate=True)
    return make_safe(data, image, item, project, run)


def _store_mask(project: Project, mask: bytes, row: RowMapping | dict[str, Any]) -> StoredMask:
    """Store the mask of a sample, given by its row of the catalogue."""
    orientation = read_orientation(Storage(project.bucket).get(row["key"]))
    return store_mask(mask, (row["width"], row["height"]), project, orientation)


def _enter(
    connection: Connection, project: str, sha256: str, posted: Posted, mask_key: str | None
) -> tuple[RowMapping, bool]:
    """Return the annotation, and whether it is new: the same as the last deliberate one is not entered again."""
    of_sample = and_(annotations.c.project == project, annotations.c.sha256 == sha256)
    deliberate: ColumnElement[bool] = annotations.c.origin.in_(DELIBERATE)
    last = _first(connection, select(annotations).where(of_sample, deliberate).order_by(annotations.c.id.desc()))
    new = {"label": posted.label, "type": posted.type, "author": posted.author, "mask_key": mask_key}
    if last is not None and {name: last[name] for name in new} == new:
        return last, False
    row = new | {"project": project, "sha256": sha256, "origin": "serving", "created_at": now()}
    entered = connection.execute(annotations.insert().values(row).returning(annotations)).mappings().one()
    return entered, True


def _first(connection: Connection, query: Any) -> RowMapping | None:
    return connection.execute(query.limit(1)).mappings().first()
