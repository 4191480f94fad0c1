"""Sends mails through Airflow's SMTP connection: those of tasks, and those about failed tasks.

Every DAG file imports this module for its callback, so heavy imports are inside the functions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from pipelines.errors import InspectlineError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from monitoring.mail.mails import Mail

SMTP_CONNECTION = "smtp_default"
_ERROR_LENGTH = 600  # characters

log = logging.getLogger(__name__)


class MailNotSent(InspectlineError):
    """A mail could not be handed to the SMTP server; the next try may succeed."""

    passing = True


def send(mail: Mail | Mapping[str, Any] | None, connection_id: str = SMTP_CONNECTION) -> dict[str, Any]:
    """Send one mail, or those that a drift report requires (the `mail` of `monitoring.drift.detect.detect`).

    With None or without recipients, nothing is sent, which is logged.

    Returns:
        {"sent": [subjects], "to": [addresses]}

    Raises:
        MailNotSent: the connection is missing or the server refused; a retry does not repeat mails that were sent.
    """
    from monitoring.mail import outbox
    from monitoring.mail.mails import Mail

    if mail is None:
        log.info("Nothing to tell: no mail")
        return {"sent": [], "to": []}
    if isinstance(mail, Mail):
        return (
            {"sent": [mail.subject], "to": list(mail.to)} if _deliver(mail, connection_id) else {"sent": [], "to": []}
        )
    sent: list[str] = []
    recipients: list[str] = []
    for message, mark in outbox.unpack(mail):
        if _deliver(message, connection_id):
            mark()
            sent.append(message.subject)
            recipients += [address for address in message.to if address not in recipients]
    return {"sent": sent, "to": recipients}


def _deliver(mail: Mail, connection_id: str) -> bool:
    """Hand one mail to the server; return False if it has no recipients."""
    if not mail.to:
        log.info("No mail %r: the project file names no recipients", mail.subject)
        return False
    # Airflow's classes raise the exceptions of smtplib, ssl and the secrets backend.
    try:
        from mail_hook import TwoPartMailHook

        with TwoPartMailHook(smtp_conn_id=connection_id) as hook:
            hook.send(mail)  # type: ignore[attr-defined]
    except Exception as error:
        raise MailNotSent(
            f"{mail.subject!r} was not mailed through Airflow's connection {connection_id!r}: {one_line(error)}; "
            "check its host, port, login, from_email, disable_tls and disable_ssl"
        ) from error
    log.info("Mailed %r to %s", mail.subject, ", ".join(mail.to))
    return True


class InspectlineNotifier(BaseNotifier):
    """Mails the failure of a task to the project's recipients; for `on_failure_callback`.

    If the mail cannot be sent, one line is logged; it never hides the task's own error.

    :param project: the project's name.
    :param connection_id: the SMTP connection's id.
    """

    template_fields = ()

    def __init__(self, project: str, connection_id: str = SMTP_CONNECTION) -> None:
        super().__init__()
        self.project = project
        self.connection_id = connection_id

    def notify(self, context: Context) -> None:
        """Send the mail about the failed task of `context`."""
        from monitoring.mail.mails import failure_mail

        # An error here must not hide the error that the task failed with.
        try:
            send(failure_mail(_failure(self.project, context)), self.connection_id)
        except Exception as error:
            log.error("The failure could not be mailed: %s", one_line(error))


def _failure(project: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the argument of `failure_mail`; a task whose process was killed has no exception."""
    ti = context["ti"]
    error = context.get("exception") or context.get("reason")
    task = context.get("task") or getattr(ti, "task", None)
    doc = getattr(task, "doc_md", None) or getattr(task, "doc", None) or ""
    return {
        "project": project,
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "map_index": getattr(ti, "map_index", None),
        "label": getattr(ti, "rendered_map_index", None),
        "try_number": getattr(ti, "try_number", None),
        "error": one_line(error) if error else None,
        "doc": doc.strip().partition("\n")[0],
        "when": datetime.now(UTC),
    }


def one_line(error: BaseException | str) -> str:
    """Return an error as one line; errors other than ours are prefixed with their class."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, BaseException) and not isinstance(error, InspectlineError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:_ERROR_LENGTH]
