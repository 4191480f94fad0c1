"""Decides which mails a drift report requires, renders them when they are sent, and records that they were sent.

Tasks pass only a reference to each other: {"report_id": 7, "due": ["drift", "digest"]}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import RowMapping

from monitoring.drift import reports
from monitoring.mail import digest
from monitoring.mail.mails import Mail, digest_mail, drift_mail
from pipelines.catalogue import connect, transaction
from pipelines.config.project import Project, load_project


def due(project: Project, report: RowMapping, now: datetime) -> dict[str, Any] | None:
    """Return the reference to the mails that `report` requires, or None if it requires none."""
    with connect() as connection:
        kinds = ["drift"] if reports.mail_due(connection, report) else []
        if digest.due(connection, project, now):
            kinds.append("digest")
    return {"report_id": report["id"], "due": kinds} if kinds else None


def unpack(reference: Mapping[str, Any]) -> Iterator[tuple[Mail, Callable[[], None]]]:
    """Yield each mail that is still due, with the callback that records its sending: a retry sends nothing twice."""
    report_id = int(reference["report_id"])
    for kind in reference["due"]:
        mail = _drift(report_id) if kind == "drift" else _digest(report_id)
        if mail is not None:
            yield mail, partial(_mark, reports.mark_mailed if kind == "drift" else reports.mark_digest, report_id)


def _drift(report_id: int) -> Mail | None:
    with connect() as connection:
        report = reports.get(connection, report_id)
        if not reports.mail_due(connection, report):
            return None
        former = reports.last_mailed(connection, report["project"])
    return drift_mail(load_project(report["project"]), dict(report), dict(former) if former else None)


def _digest(report_id: int) -> Mail | None:
    now = datetime.now(UTC)
    with connect() as connection:
        project = load_project(reports.get(connection, report_id)["project"])
        if not digest.due(connection, project, now):
            return None
        week = digest.facts(connection, project, now)
    return digest_mail(project, week)


def _mark(note: Callable[..., None], report_id: int) -> None:
    with transaction() as connection:
        note(connection, report_id)
