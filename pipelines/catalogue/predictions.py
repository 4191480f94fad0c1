"""What serving has seen: predictions in the catalogue, each once, and images in S3 for as long as they are kept."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from pipelines.catalogue.database import CHUNK, connect, insert_new, transaction
from pipelines.catalogue.schema import now, predictions
from pipelines.config.project import load_project
from pipelines.storage.s3 import Storage


def enter(rows: Sequence[Mapping[str, Any]]) -> None:
    """Enter predictions, each a row of the table; one whose `request_id` is there already stays as it is.

    Raises:
        CatalogueError: the database cannot be reached; none was entered.
    """
    with transaction() as connection:
        # The first row's columns are taken for all, and some rows may come from the journal of an earlier version.
        columns = {name: "anomaly" if name == "task" else None for row in rows for name in row}
        insert_new(connection, predictions, [{**columns, **row} for row in rows], key=["request_id"])


def purge_expired(project: str, when: datetime | None = None) -> dict[str, int]:
    """Delete from S3 the served images of `project` whose time is over at `when` (default: now); rows stay.

    Killed at any moment and run again, it ends in the same state.

    Returns:
        `{"images": deleted from S3, "predictions": rows that no longer have an image}`.
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
            # The same image, predicted again under a longer rule, is kept for the longer time.
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
