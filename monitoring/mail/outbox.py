"""Decides which mails a report requires, renders them when they are sent, and records that they were sent.

Tasks pass only a reference to each other: {"report_id": 7, "due": ["drift", "digest"]} for a drift report,
{"report_id": 7, "due": ["accuracy"]} for an accuracy check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import RowMapping

from monitoring.accuracy import checks
from monitoring.drift import reports
from monitoring.mail import digest
from monitoring.mail.mails import Mail, accuracy_mail, digest_mail, drift_mail
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
    row_id = int(reference["report_id"])
    for kind in reference["due"]:
        render, note = _KINDS[kind]
        mail = render(row_id)
        if mail is not None:
            yield mail, partial(_mark, note, row_id)


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


def _accuracy(check_id: int) -> Mail | None:
    with connect() as connection:
        check = checks.LOG.get(connection, check_id)
        if not checks.LOG.mail_due(connection, check):
            return None
        former = checks.LOG.last_mailed(connection, check["project"])
        names = checks.names(connection, check)
    return accuracy_mail(load_project(check["project"]), dict(check), names, dict(former) if former else None)


# By kind: what renders the mail of a row, and what records its sending.
_KINDS: dict[str, tuple[Callable[[int], Mail | None], Callable[..., None]]] = {
    "drift": (_drift, reports.mark_mailed),
    "digest": (_digest, reports.mark_digest),
    "accuracy": (_accuracy, checks.LOG.mark_mailed),
}


def _mark(note: Callable[..., None], report_id: int) -> None:
    with transaction() as connection:
        note(connection, report_id)
