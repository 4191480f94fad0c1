"""Airflow's SMTP hook for mails with a text and an HTML part, which the provider's hook does not support."""

from collections.abc import Iterable
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Any

from airflow.providers.smtp.hooks.smtp import SmtpHook

from monitoring.mail.mails import Mail


class TwoPartMailHook(SmtpHook):
    """Sends a `Mail` through an Airflow connection, which defines server, login, TLS and sender (`from_email`).

    :param smtp_conn_id: the connection's id.
    """

    def send(self, mail: Mail) -> None:
        """Send `mail` to all its recipients; the connection must be open (`with TwoPartMailHook(…) as hook`)."""
        self._mail = mail
        self.send_email_smtp(to=list(mail.to), subject=mail.subject, html_content=mail.html)

    def _build_mime_message(self, mail_from: str | None, to: str | Iterable[str], *_: Any, **__: Any) -> Any:
        """Return the message that the provider sends, multipart/alternative, and its recipients."""
        mail = self._mail
        message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
        message["Subject"] = mail.subject
        message["From"] = mail_from
        message["To"] = ", ".join(mail.to)
        message["Date"] = formatdate(localtime=True)
        message["Message-ID"] = make_msgid(domain=(mail_from or "").rpartition("@")[2].strip("> ") or None)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: prevents out-of-office replies
        message.set_content(mail.text)
        message.add_alternative(mail.html, subtype="html")
        return message, list(mail.to)
