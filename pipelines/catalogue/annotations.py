"""The annotations of samples: which one holds."""

from collections.abc import Iterable

from sqlalchemy import Connection, RowMapping, select

from pipelines.catalogue.schema import annotations

DELIBERATE = ("decision", "serving")


_CHUNK = 500


def latest(connection: Connection, project: str, hashes: Iterable[str]) -> dict[str, RowMapping]:
    """Return the annotation that holds for each of these images: the latest deliberate one, else the latest."""
    found: dict[str, RowMapping] = {}
    wanted = list(dict.fromkeys(hashes))
    for start in range(0, len(wanted), _CHUNK):
        rows = connection.execute(
            select(annotations)
            .where(annotations.c.project == project, annotations.c.sha256.in_(wanted[start : start + _CHUNK]))
            .order_by(annotations.c.origin.in_(DELIBERATE), annotations.c.id)
        ).mappings()
        found |= {row["sha256"]: row for row in rows}
    return found
