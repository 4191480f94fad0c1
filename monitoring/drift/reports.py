"""Reads and writes the catalogue's drift reports: one row per run, with the time at which it was mailed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from pipelines.catalogue.database import lock_project
from pipelines.catalogue.schema import drift_reports, now

COMPARED = ("drift", "no_drift")


def find(connection: Connection, project_name: str, dag_run_id: str) -> RowMapping | None:
    """Return the report of one run, or None."""
    query = select(drift_reports).where(
        drift_reports.c.project == project_name, drift_reports.c.dag_run_id == dag_run_id
    )
    return connection.execute(query).mappings().first()


def get(connection: Connection, report_id: int) -> RowMapping:
    """Return the report with this id."""
    return connection.execute(select(drift_reports).where(drift_reports.c.id == report_id)).mappings().one()


def enter(connection: Connection, project_name: str, dag_run_id: str, state: str, **values: Any) -> RowMapping:
    """Insert the report of one run and return its row; if the run already has a report, return that one.

    `changed` is whether the state differs from that of the last comparison; before the first one it is `no_drift`.
    """
    lock_project(connection, project_name)
    existing = find(connection, project_name, dag_run_id)
    if existing is not None:
        return existing
    last = last_compared(connection, project_name)
    changed = state in COMPARED and state != (last["state"] if last else "no_drift")
    entered = connection.execute(
        drift_reports.insert()
        .values(project=project_name, dag_run_id=dag_run_id, state=state, changed=changed, **values)
        .returning(drift_reports.c.id)
    )
    return get(connection, entered.scalar_one())


def last_compared(connection: Connection, project_name: str) -> RowMapping | None:
    """Return the newest report whose run compared images (state `drift` or `no_drift`), or None."""
    query = select(drift_reports).where(drift_reports.c.project == project_name, drift_reports.c.state.in_(COMPARED))
    return connection.execute(query.order_by(drift_reports.c.id.desc()).limit(1)).mappings().first()


def mail_due(connection: Connection, report: RowMapping) -> bool:
    """Return whether this report has to be mailed: its state differs from the state that was mailed last.

    If a mail could not be sent, the next run sends it; a change that was reverted before its mail went out is never
    mailed.
    """
    if report["state"] not in COMPARED or report["mailed_at"] is not None:
        return False
    previous = last_mailed(connection, report["project"])
    return bool(report["state"] != (previous["state"] if previous else "no_drift"))


def last_mailed(connection: Connection, project_name: str) -> RowMapping | None:
    """Return the newest report that was mailed, or None."""
    query = select(drift_reports).where(drift_reports.c.project == project_name, drift_reports.c.mailed_at.is_not(None))
    return connection.execute(query.order_by(drift_reports.c.id.desc()).limit(1)).mappings().first()


def mark_mailed(connection: Connection, report_id: int, when: datetime | None = None) -> None:
    """Record that this report was mailed, by default now."""
    connection.execute(update(drift_reports).where(drift_reports.c.id == report_id).values(mailed_at=when or now()))


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
