"""Look up the effective annotation of each sample."""

from collections.abc import Iterable

from sqlalchemy import Connection, RowMapping, case, select

from pipelines.catalogue.database import chunks, connect
from pipelines.catalogue.schema import annotations

DELIBERATE = ("decision", "serving")
PROPOSED = "proposed"  # by a prediction of high certainty, until somebody says what the image shows
# The annotation that holds comes last, after its id among those of one rank.
_RANK = case((annotations.c.origin.in_(DELIBERATE), 2), (annotations.c.origin == PROPOSED, 0), else_=1)


def latest(connection: Connection, project: str, hashes: Iterable[str]) -> dict[str, RowMapping]:
    """Return the effective annotation of each sample by SHA-256: the latest deliberate one, else the latest
    that nobody proposed, else the latest.
    """
    by_hash: dict[str, RowMapping] = {}
    for chunk in chunks(dict.fromkeys(hashes)):
        rows = connection.execute(
            select(annotations)
            .where(annotations.c.project == project, annotations.c.sha256.in_(chunk))
            .order_by(_RANK, annotations.c.id)
        ).mappings()
        by_hash |= {row["sha256"]: row for row in rows}
    return by_hash


def proposals(project: str, limit: int, before: int | None = None) -> list[RowMapping]:
    """Return up to `limit` proposed annotations that hold, newest first; with `before`, an id, those older than it.

    A proposal holds until somebody annotates the image, or a later version proposes another class.
    """
    other = annotations.alias()
    replaced = (
        select(other.c.id)
        .where(
            other.c.project == project,
            other.c.sha256 == annotations.c.sha256,
            (other.c.origin != PROPOSED) | (other.c.id > annotations.c.id),
        )
        .exists()
    )
    query = select(annotations).where(annotations.c.project == project, annotations.c.origin == PROPOSED, ~replaced)
    if before is not None:
        query = query.where(annotations.c.id < before)
    with connect() as connection:
        return list(connection.execute(query.order_by(annotations.c.id.desc()).limit(limit)).mappings())
