"""Corrects what serving said of an image: the image becomes a sample, what somebody says of it an annotation.

An annotation of origin `serving` outweighs what the inbox says; the latest holds, and none is ever overwritten. The
next dataset version has it.
"""

import hashlib
import secrets
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, select

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.annotations import DELIBERATE
from pipelines.catalogue.bit_depth import with_project_bits
from pipelines.catalogue.database import lock_project
from pipelines.catalogue.schema import annotations, now, predictions, samples
from pipelines.config.project import Project
from pipelines.errors import InspectlineError, NotFound
from pipelines.images.decode import read_orientation
from pipelines.ingest.commit import enter_in
from pipelines.ingest.items import InboxItem
from pipelines.ingest.submission import Posted, checked_label, folder_of, metadata_of, sample_now
from pipelines.ingest.validate import Sample, StoredMask, make_safe, open_sample, store_mask
from pipelines.storage.s3 import Storage


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
    # It was judged under rules that may have become stricter since: what was served can be annotated.
    pixels = max(project.image.max_pixels, served["width"] * served["height"])
    rules = project.image.model_copy(update={"max_pixels": pixels, "min_side": 1})
    image = open_sample(data, project.model_copy(update={"image": rules}))
    source = served["source"] or ""
    named = replace(posted, name="" if source == "upload" else source)
    known = metadata_of(project, named, hashlib.sha256(data).hexdigest())
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
