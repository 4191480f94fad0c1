"""Reads and writes the catalogue's drift reports: one row per run, with the time at which it was mailed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, select, update

from monitoring.state_log import StateLog
from pipelines.catalogue.schema import drift_reports, now

COMPARED = ("drift", "no_drift")  # the states of a run that compared images
LOG = StateLog(drift_reports, COMPARED, "no_drift")

find, get, enter = LOG.find, LOG.get, LOG.enter
last_compared, last_mailed = LOG.last, LOG.last_mailed
mail_due, mark_mailed = LOG.mail_due, LOG.mark_mailed


def mark_digest(connection: Connection, report_id: int, when: datetime | None = None) -> None:
    """Record on the newest report it covers that a digest was sent, by default now."""
    values = {"digest_sent_at": when or now()}
    connection.execute(update(drift_reports).where(drift_reports.c.id == report_id).values(values))


def between(connection: Connection, project_name: str, start: datetime, end: datetime) -> Sequence[RowMapping]:
    """Return the reports created from `start` (inclusive) to `end` (exclusive), oldest first."""
    query = (
        select(drift_reports)
        .where(
            drift_reports.c.project == project_name,
            drift_reports.c.created_at >= start,
            drift_reports.c.created_at < end,
        )
        .order_by(drift_reports.c.id)
    )
    return connection.execute(query).mappings().all()
