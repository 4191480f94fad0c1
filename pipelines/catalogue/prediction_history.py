"""Past predictions, page by page, the newest first, each with what somebody said of its image since.

A page continues after the last row of the one before (time, then id), not at a number: predictions that come in
meanwhile shift nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, or_, select

from pipelines.catalogue import connect
from pipelines.catalogue.annotations import latest
from pipelines.catalogue.schema import now, predictions

VERDICTS = ("good", "review", "anomaly")
Place = tuple[datetime, int]
_SHOWN = (
    "request_id",
    "sha256",
    "created_at",
    "task",
    "is_anomaly",
    "threshold",
    "model_version",
    "source",
    "width",
    "height",
)


@dataclass(frozen=True)
class Wanted:
    """Which predictions are asked for: from `since` on and before `until`, and those that agree with the rest."""

    since: datetime | None = None
    until: datetime | None = None
    verdict: str | None = None
    is_anomaly: bool | None = None
    version: str | None = None


def read_page(
    project: str, wanted: Wanted, limit: int, after: Place | None
) -> tuple[list[dict[str, Any]], Place | None]:
    """Return up to `limit` predictions after the place `after` (None: the newest), and the place to go on, if any."""
    table = predictions.c
    verdict = func.coalesce(table.verdict, case((table.is_anomaly, "anomaly"), else_="good"))
    query = select(predictions, verdict.label("told")).where(table.project == project)
    if wanted.since:
        query = query.where(table.created_at >= wanted.since)
    if wanted.until:
        query = query.where(table.created_at < wanted.until)
    if wanted.verdict:
        query = query.where(verdict == wanted.verdict)
    if wanted.is_anomaly is not None:
        query = query.where(table.is_anomaly.is_(wanted.is_anomaly))
    if wanted.version:
        query = query.where(table.model_version == wanted.version)
    if after:
        moment, number = after
        query = query.where(or_(table.created_at < moment, and_(table.created_at == moment, table.id < number)))
    with connect() as connection:
        query = query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
        rows = connection.execute(query).mappings().all()
        said = latest(connection, project, (row["sha256"] for row in rows[:limit]))
    place = (rows[limit - 1]["created_at"], rows[limit - 1]["id"]) if len(rows) > limit else None
    return [_told(dict(row), said.get(row["sha256"])) for row in rows[:limit]], place


def _told(row: dict[str, Any], said: Any) -> dict[str, Any]:
    told = {name: row[name] for name in _SHOWN}
    told["created_at"] = row["created_at"].isoformat()
    told |= {"anomaly_score": row["score"], "reconstruction_error": row["score"], "verdict": row["told"]}
    told["image_kept"] = row["image_key"] is not None and (row["expires_at"] is None or row["expires_at"] > now())
    told["annotation"] = said and {
        "label": said["label"],
        "type": said["type"],
        "author": said["author"],
        "origin": said["origin"],
        "created_at": said["created_at"].isoformat(),
    }
    return told
