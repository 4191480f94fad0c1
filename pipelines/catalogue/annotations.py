"""The annotations of samples: which one holds."""

from collections.abc import Iterable

from sqlalchemy import Connection, RowMapping, select

from pipelines.catalogue.database import chunks
from pipelines.catalogue.schema import annotations

DELIBERATE = ("decision", "serving")


def latest(connection: Connection, project: str, hashes: Iterable[str]) -> dict[str, RowMapping]:
    """Return the annotation that holds for each of these images: the latest deliberate one, else the latest."""
    found: dict[str, RowMapping] = {}
    for chunk in chunks(dict.fromkeys(hashes)):
        rows = connection.execute(
            select(annotations)
            .where(annotations.c.project == project, annotations.c.sha256.in_(chunk))
            .order_by(annotations.c.origin.in_(DELIBERATE), annotations.c.id)
        ).mappings()
        found |= {row["sha256"]: row for row in rows}
    return found
