"""Read past predictions page by page, newest first, each with the effective annotation of its image.

Keyset pagination: a page continues after the previous page's last row (time, then id) rather than at an offset, so that
predictions recorded in between shift nothing.
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
    "model_version",
    "source",
    "width",
    "height",
)


@dataclass(frozen=True)
class Wanted:
    """A filter on predictions; None (default) matches all.

    Attributes:
        since: earliest time, inclusive.
        until: latest time, exclusive.
        verdict: good, review or anomaly; only anomaly detectors give one.
        is_anomaly: whether the score exceeds the threshold.
        version: model version.
    """

    since: datetime | None = None
    until: datetime | None = None
    verdict: str | None = None
    is_anomaly: bool | None = None
    version: str | None = None


def read_page(
    project: str, wanted: Wanted, limit: int, after: Place | None
) -> tuple[list[dict[str, Any]], Place | None]:
    """Return up to `limit` predictions after `after` (None: the newest), and where the next page starts, if any."""
    table = predictions.c
    by_threshold = case((table.is_anomaly, "anomaly"), (table.is_anomaly.is_not(None), "good"))
    verdict = func.coalesce(table.verdict, by_threshold)
    query = select(predictions, verdict.label("effective_verdict")).where(table.project == project)
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
        annotations = latest(connection, project, (row["sha256"] for row in rows[:limit]))
    place = (rows[limit - 1]["created_at"], rows[limit - 1]["id"]) if len(rows) > limit else None
    return [_to_json(dict(row), annotations.get(row["sha256"])) for row in rows[:limit]], place


def _to_json(row: dict[str, Any], annotation: Any) -> dict[str, Any]:
    shown = {name: row[name] for name in _SHOWN}
    shown["created_at"] = row["created_at"].isoformat()
    shown |= _classified(row) if row["task"] == "classification" else _scored(row)
    shown["image_kept"] = row["image_key"] is not None and (row["expires_at"] is None or row["expires_at"] > now())
    shown["annotation"] = annotation and {
        "label": annotation["label"],
        "type": annotation["type"],
        "author": annotation["author"],
        "origin": annotation["origin"],
        "created_at": annotation["created_at"].isoformat(),
    }
    return shown


def _scored(row: dict[str, Any]) -> dict[str, Any]:
    """Return what an anomaly detector said."""
    shown = {name: row[name] for name in ("is_anomaly", "threshold")}
    return shown | {
        "anomaly_score": row["score"],
        "reconstruction_error": row["score"],
        "verdict": row["effective_verdict"],
    }


def _classified(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a classifier said."""
    answer = row["answer"] or {}
    return {name: answer.get(name) for name in ("class", "unsure", "conformal_set")} | {"certainty": row["score"]}
