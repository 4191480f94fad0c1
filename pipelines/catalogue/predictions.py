"""Record served predictions in the catalogue exactly once, and delete their images from S3 when they expire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, select, update

from pipelines.catalogue.database import CHUNK, connect, insert_new, transaction
from pipelines.catalogue.schema import now, predictions
from pipelines.config.project import load_project
from pipelines.storage.s3 import Storage


def enter(rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert predictions as rows of the table; a row with an existing `request_id` is left unchanged.

    Raises:
        CatalogueError: the database is unreachable; nothing was inserted.
    """
    with transaction() as connection:
        # SQLAlchemy derives the columns from the first row, and rows from an older version's journal may lack some.
        columns = {name: "anomaly" if name == "task" else None for row in rows for name in row}
        insert_new(connection, predictions, [{**columns, **row} for row in rows], key=["request_id"])


def find_prediction(project: str, sha256: str, model_version: str, since: datetime | None = None) -> RowMapping | None:
    """Return a prediction with a typed answer that this version gave for the image, at `since` or later; else None.

    Any of several will do: a version gives the same answer for the same bytes.

    Raises:
        CatalogueError: the database is unreachable.
    """
    table = predictions.c
    query = select(predictions).where(
        table.project == project,
        table.sha256 == sha256,
        table.model_version == model_version,
        table.answer.is_not(None),
    )
    if since is not None:
        query = query.where(table.created_at >= since)
    with connect() as connection:
        return connection.execute(query.limit(1)).mappings().first()


def purge_expired(project: str, when: datetime | None = None) -> dict[str, int]:
    """Delete from S3 the served images of `project` that have expired at `when` (default: now); the rows stay.

    Idempotent, also when it is killed and run again.

    Returns:
        `{"images": objects deleted from S3, "predictions": rows whose image key was cleared}`.
    """
    moment = when or now()
    storage = Storage(load_project(project).bucket)
    ours = predictions.c.project == project
    images = rows = 0
    while True:
        with connect() as connection:
            expired = (
                select(predictions.c.image_key)
                .distinct()
                .where(ours, predictions.c.image_key.is_not(None), predictions.c.expires_at < moment)
            )
            keys = list(connection.execute(expired.limit(CHUNK)).scalars())
            # An image shared with a prediction that expires later is kept until then.
            still_kept = set(
                connection.execute(
                    select(predictions.c.image_key).where(
                        ours, predictions.c.image_key.in_(keys), predictions.c.expires_at >= moment
                    )
                ).scalars()
            )
        if not keys:
            return {"images": images, "predictions": rows}
        for key in keys:
            if key not in still_kept:
                storage.delete(key)
                images += 1
        with transaction() as connection:
            cleared = connection.execute(
                update(predictions)
                .where(ours, predictions.c.image_key.in_(keys), predictions.c.expires_at < moment)
                .values(image_key=None)
            )
            rows += cleared.rowcount
