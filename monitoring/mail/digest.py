"""Collects the weekly digest, sent once after each week (Monday to Sunday, in the project's time zone)."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, case, func, select

from monitoring.drift import reports
from monitoring.mail.formatting import day, reason
from monitoring.tasks import describe_task
from pipelines.catalogue.schema import drift_reports, predictions, trainings
from pipelines.config.project import Project


def due(connection: Connection, project: Project, now: datetime) -> bool:
    """Return whether the digest of the last complete week has not been sent yet.

    The first digest follows the week of the first drift report.
    """
    last = connection.execute(
        select(func.max(drift_reports.c.digest_sent_at)).where(drift_reports.c.project == project.name)
    ).scalar()
    if last is None:
        last = connection.execute(
            select(func.min(drift_reports.c.created_at)).where(drift_reports.c.project == project.name)
        ).scalar()
    return last is not None and last < _monday(now, project.timezone)


def facts(connection: Connection, project: Project, now: datetime) -> dict[str, Any]:
    """Return the facts of the last complete week before `now`: predictions, drift by day, trainings."""
    words = describe_task(project.task)
    end = _monday(now, project.timezone)
    zone = ZoneInfo(project.timezone)
    start = _monday(end - timedelta(days=1), project.timezone)
    before = _monday(start - timedelta(days=1), project.timezone)
    sunday = end.astimezone(zone) - timedelta(days=1)
    week = start.astimezone(zone)
    drift_reports = reports.between(connection, project.name, start, end)
    days = []
    for offset in range(7):
        date = week.date() + timedelta(days=offset)
        of_day = [report for report in drift_reports if report["created_at"].astimezone(zone).date() == date]
        # The worst state of the day: a drift that ended by the evening is still worth reporting.
        state = next((state for state in _WORST if any(report["state"] == state for report in of_day)), None)
        days.append({"day": f"{date:%a} {date.day}", "state": state})
    rows = connection.execute(
        select(trainings)
        .where(
            trainings.c.project == project.name,
            trainings.c.finished_at >= start,
            trainings.c.finished_at < end,
        )
        .order_by(trainings.c.finished_at)
    ).mappings()
    return {
        "title": f"week {week.isocalendar().week}, {week.day} {week:%B} to {sunday.day} {sunday:%B %Y}",
        "flagged": words.flagged,
        "served": _served(connection, project, start, end),
        "former": _served(connection, project, before, start),
        "expected": project.threshold.defect_rate if words.expects_defects else None,
        "days": days,
        "drift_days": sum(date["state"] == "drift" for date in days),
        "latest": _latest(drift_reports, project.timezone),
        "trainings": [
            {
                "kind": row["kind"],
                "state": row["state"],
                "version": row["model_version"],
                "promoted": bool(row["promoted"]),
                "finished": day(row["finished_at"], project.timezone),
                "why": reason((row["result"] or {}).get("why")),
            }
            for row in rows
        ],
    }


# The predictions whose share the digest follows, by task.
_FLAGGED: dict[str, ColumnElement[bool]] = {
    "anomaly": predictions.c.is_anomaly.is_(True),
    "classification": predictions.c.answer["unsure"].as_boolean(),
}
_WORST = ("drift", "no_drift", "too_few", "no_champion")


def _latest(reports: Any, zone: str) -> dict[str, Any] | None:
    """Return state, reasons, day and model version of the week's last report, or None."""
    if not reports:
        return None
    last = reports[-1]
    return {
        "state": last["state"],
        "reasons": last["results"].get("reasons", []),
        "day": day(last["created_at"], zone),
        "version": last["model_version"],
    }


def _served(connection: Connection, project: Project, start: datetime, end: datetime) -> dict[str, Any]:
    """Return the numbers of predictions and distinct images, and the share that is flagged (None without any)."""
    flagged = case((_FLAGGED[project.task], 1), else_=0)
    count, distinct, raised = connection.execute(
        select(func.count(), func.count(predictions.c.sha256.distinct()), func.sum(flagged)).where(
            predictions.c.project == project.name,
            predictions.c.task == project.task,
            predictions.c.created_at >= start,
            predictions.c.created_at < end,
        )
    ).one()
    return {"predictions": count, "images": distinct, "flagged": float(raised) / count if count else None}


def _monday(moment: datetime, zone: str) -> datetime:
    """Return the start of the week of `moment`, Monday midnight in `zone`, as UTC."""
    local = moment.astimezone(ZoneInfo(zone))
    monday = local.date() - timedelta(days=local.weekday())
    return datetime.combine(monday, time(), ZoneInfo(zone)).astimezone(UTC)
