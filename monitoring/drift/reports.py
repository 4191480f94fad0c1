"""The catalogue's drift reports: one row for each run, and what people were told of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from pipelines.catalogue.database import lock_project
from pipelines.catalogue.schema import drift_reports, now

COMPARED = ("drift", "no_drift")


def find(connection: Connection, project: str, dag_run_id: str) -> RowMapping | None:
    """Return the report of one run, or None."""
    query = select(drift_reports).where(drift_reports.c.project == project, drift_reports.c.dag_run_id == dag_run_id)
    return connection.execute(query).mappings().first()


def get(connection: Connection, report_id: int) -> RowMapping:
    """Return the report with this id."""
    return connection.execute(select(drift_reports).where(drift_reports.c.id == report_id)).mappings().one()


def enter(connection: Connection, project: str, dag_run_id: str, state: str, **values: Any) -> RowMapping:
    """Enter the report of one run and return its row; a run that has one already keeps it.

    `changed` is whether a comparison came out differently from the last one; before the first, there is no drift.
    """
    lock_project(connection, project)
    known = find(connection, project, dag_run_id)
    if known is not None:
        return known
    last = last_compared(connection, project)
    changed = state in COMPARED and state != (last["state"] if last else "no_drift")
    entered = connection.execute(
        drift_reports.insert()
        .values(project=project, dag_run_id=dag_run_id, state=state, changed=changed, **values)
        .returning(drift_reports.c.id)
    )
    return get(connection, entered.scalar_one())


def last_compared(connection: Connection, project: str) -> RowMapping | None:
    """Return the newest report that compared anything."""
    query = select(drift_reports).where(drift_reports.c.project == project, drift_reports.c.state.in_(COMPARED))
    return connection.execute(query.order_by(drift_reports.c.id.desc()).limit(1)).mappings().first()


def untold(connection: Connection, report: RowMapping) -> bool:
    """Tell whether this report has to be mailed: its state is not the one that people were told last.

    So a mail that could not be sent is made up for by the next run, and a change that was over before its mail went
    out is never told.
    """
    if report["state"] not in COMPARED or report["mailed_at"] is not None:
        return False
    told = last_told(connection, report["project"])
    return bool(report["state"] != (told["state"] if told else "no_drift"))


def last_told(connection: Connection, project: str) -> RowMapping | None:
    """Return the newest report that was mailed."""
    query = select(drift_reports).where(drift_reports.c.project == project, drift_reports.c.mailed_at.is_not(None))
    return connection.execute(query.order_by(drift_reports.c.id.desc()).limit(1)).mappings().first()


def mark_mailed(connection: Connection, report_id: int, when: datetime | None = None) -> None:
    """Note that this report's mail is sent."""
    connection.execute(update(drift_reports).where(drift_reports.c.id == report_id).values(mailed_at=when or now()))


def mark_digest(connection: Connection, report_id: int, when: datetime | None = None) -> None:
    """Note that a digest is sent, with the newest report that it knew."""
    values = {"digest_sent_at": when or now()}
    connection.execute(update(drift_reports).where(drift_reports.c.id == report_id).values(values))


def between(connection: Connection, project: str, start: datetime, end: datetime) -> Sequence[RowMapping]:
    """Return the reports entered from `start` until before `end`, in order."""
    query = (
        select(drift_reports)
        .where(
            drift_reports.c.project == project,
            drift_reports.c.created_at >= start,
            drift_reports.c.created_at < end,
        )
        .order_by(drift_reports.c.id)
    )
    return connection.execute(query).mappings().all()
