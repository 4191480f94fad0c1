"""The notifier over a real SMTP server: what arrives, and what happens when nothing can."""

import json
import logging
import mailbox
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult, LoginPassword

from monitoring.drift import reports
from monitoring.mail.mails import Mail
from notifier import InspectlineNotifier, MailNotSent, one_line, send
from pipelines.catalogue import connect, transaction
from pipelines.errors import StorageError
from tests.conftest import free_port
from tests.dags.conftest import airflow_database, parse

__all__ = ["airflow_database"]  # the fixture

SENDER = "Inspectline <inspectline@example.com>"
MAIL = Mail(
    "Zellen – Drift: 12 % über dem Üblichen",
    "Plain words, ümlauts and a very long line " + "x" * 1200 + "\n.\nend\n",
    "<p>Rich <b>wörds</b></p>",
    ("quality@example.com", "shift@example.com"),
)


class Post:
    """A mail server's Maildir, and Airflow's connection to the server."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def connection(self, name: str = "smtp_default", **keys: Any) -> None:
        """Declare an Airflow connection."""
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": "smtp"} | keys))

    def mails(self) -> list[EmailMessage]:
        """Return what has arrived, oldest first."""
        box = mailbox.Maildir(self.folder)
        mails = [message_from_bytes(box.get_bytes(key), policy=default) for key in box.iterkeys()]
        return sorted(mails, key=lambda mail: str(mail["Date"]))  # type: ignore[return-value]


@pytest.fixture
def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    """Run an SMTP server that keeps what it gets, and point `smtp_default` at it."""
    post = Post(tmp_path / "maildir", monkeypatch)
    server = Controller(Mailbox(str(post.folder)), hostname="127.0.0.1", port=free_port())
    server.start()
    extra = {"from_email": SENDER, "disable_ssl": True, "disable_tls": True}
    post.connection(host="127.0.0.1", port=server.port, extra=extra)
    yield post
    server.stop()


@pytest.fixture
def cells(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Declare a project with one recipient and return its name."""
    folder = tmp_path / "projects"
    folder.mkdir()
    (folder / "cells.yaml").write_text(yaml.safe_dump({"title": "Cells", "recipients": ["quality@example.com"]}))
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(folder))
    monkeypatch.setenv("INSPECTLINE_AIRFLOW_URL", "https://airflow.example.com")
    return "cells"


def part(mail: EmailMessage, kind: str) -> str:
    """Return the words of the text or html part."""
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def test_send_when_server_is_there_then_text_and_html_arrive_as_they_were(post: Post):
    assert send(MAIL) == {"sent": [MAIL.subject], "to": list(MAIL.to)}
    (mail,) = post.mails()
    assert mail["Subject"] == MAIL.subject
    assert mail["From"] == SENDER
    assert mail["To"] == "quality@example.com, shift@example.com"
    assert mail["X-RcptTo"] == mail["To"]
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.com>")
    assert mail.get_content_type() == "multipart/alternative"
    assert part(mail, "plain") == MAIL.text
    assert part(mail, "html").strip() == MAIL.html
    assert all(len(line) <= 998 for line in mail.as_bytes().splitlines())  # RFC 5322


def test_send_when_subject_tries_to_add_a_header_then_it_stays_a_subject(post: Post):
    send(Mail("x\r\nBcc: thief@example.com\r\n\r\nbody", "t", "<p>h</p>", ("quality@example.com",)))
    (mail,) = post.mails()
    assert mail["Bcc"] is None
    assert mail["X-RcptTo"] == "quality@example.com"
    assert mail["Subject"] == "x Bcc: thief@example.com body"


def test_send_when_there_are_no_recipients_then_nothing_is_sent_and_the_log_says_so(
    post: Post, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="notifier"):
        assert send(Mail("subject", "text", "html", ())) == {"sent": [], "to": []}
        assert send(None) == {"sent": [], "to": []}
    assert "names no recipients" in caplog.text
    assert post.mails() == []


def test_send_when_another_connection_is_named_then_it_is_used(post: Post):
    post.connection("line_mail", host="127.0.0.1", port=json.loads(os.environ["AIRFLOW_CONN_SMTP_DEFAULT"])["port"])
    with pytest.raises(MailNotSent, match="line_mail"):
        send(MAIL, "line_mail")  # no from_email, and TLS where the server has none
    assert post.mails() == []


def test_send_when_server_is_down_then_one_line_that_a_retry_may_heal(post: Post):
    extra = {"from_email": SENDER, "disable_ssl": True, "disable_tls": True}
    post.connection(host="127.0.0.1", port=free_port(), extra=extra)
    with pytest.raises(MailNotSent, match="ConnectionRefusedError") as caught:
        send(MAIL)
    assert caught.value.passing
    assert "\n" not in str(caught.value)


def test_send_when_there_is_no_such_connection_then_says_which(post: Post):
    with pytest.raises(MailNotSent, match="'nowhere'"):
        send(MAIL, "nowhere")


def test_send_when_server_wants_a_login_then_the_connections_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    post = Post(tmp_path / "maildir", monkeypatch)

    def check(server: Any, session: Any, envelope: Any, mechanism: str, auth: LoginPassword) -> AuthResult:
        return AuthResult(success=auth == LoginPassword(b"line", b"secret"), handled=False)

    server = Controller(
        Mailbox(str(post.folder)),
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=check,
        auth_required=True,
        auth_require_tls=False,
    )
    server.start()
    try:
        extra = {"from_email": SENDER, "disable_ssl": True, "disable_tls": True}
        post.connection(host="127.0.0.1", port=server.port, login="line", password="wrong", extra=extra)
        with pytest.raises(MailNotSent) as caught:
            send(MAIL)
        assert "wrong" not in str(caught.value)
        post.connection(host="127.0.0.1", port=server.port, login="line", password="secret", extra=extra)
        send(MAIL)
    finally:
        server.stop()
    assert len(post.mails()) == 1


def enter(run: str, state: str, when: datetime | None = None) -> int:
    """Enter a drift report with nothing but its state and return its id."""
    results: dict[str, Any] = {
        "window_days": 7,
        "rescored": 0,
        "lost": 0,
        "anomalous": 0.1,
        "expected_anomalous": 0.02,
        "reasons": ["the anomaly score drifted"],
        "score": None,
        "descriptors": [],
        "embedding": None,
        "left_out": {},
        "stated": [],
    }
    values = {"created_at": when} if when else {}
    with transaction() as connection:
        return int(reports.enter(connection, "cells", run, state, results=results, **values)["id"])


def test_send_when_a_report_calls_for_mails_then_each_goes_once_and_is_noted(cells: str, post: Post):
    enter("run-1", "no_drift", datetime(2026, 11, 1, tzinfo=UTC))
    reference = {"report_id": enter("run-2", "drift"), "due": ["drift", "digest"]}
    first = send(reference)
    assert [subject.partition(":")[0] for subject in first["sent"]] == ["Cells", "Cells"]
    assert first["to"] == ["quality@example.com"]
    assert send(reference) == {"sent": [], "to": []}  # the task tried again, after it had sent
    subjects = sorted(str(mail["Subject"]) for mail in post.mails())
    assert subjects[0] == "Cells: drift – the anomaly score drifted"
    assert subjects[1].startswith("Cells: week ")
    with connect() as connection:
        noted = reports.get(connection, reference["report_id"])
    assert noted["mailed_at"] is not None
    assert noted["digest_sent_at"] is not None


def test_send_when_the_server_fails_then_nothing_is_noted_and_the_next_try_sends(cells: str, post: Post):
    reference = {"report_id": enter("run-1", "drift"), "due": ["drift"]}
    working = os.environ["AIRFLOW_CONN_SMTP_DEFAULT"]
    post.connection(host="127.0.0.1", port=free_port(), extra={"from_email": SENDER, "disable_ssl": True})
    with pytest.raises(MailNotSent):
        send(reference)
    post.connection(**json.loads(working))
    assert len(send(reference)["sent"]) == 1


FAILING_DAG = '''
from datetime import timedelta

from airflow.sdk import DAG, task

from notifier import InspectlineNotifier
from pipelines.errors import StorageError

with DAG("cells_broken", schedule=None, default_args={"on_failure_callback": InspectlineNotifier("cells")}):

    @task(retries=1, retry_delay=timedelta(0))
    def broken():
        """Read what is not there.

        And nothing else.
        """
        raise StorageError("S3 is away: check AWS_ENDPOINT_URL\\nsecond line")

    broken()
'''


@pytest.fixture
def failing_dag(airflow_database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a DAG of one task that fails, and is tried twice."""
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "broken.py").write_text(FAILING_DAG)
    bundle = {"classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": str(folder)}}
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([{"name": "broken"} | bundle]))
    return parse(folder).dags["cells_broken"]


@pytest.mark.slow
def test_notifier_when_a_task_fails_then_one_mail_after_its_last_try(failing_dag: Any, cells: str, post: Post):
    run = failing_dag.test(logical_date=None)
    assert str(run.state) == "failed"
    (mail,) = post.mails()
    assert mail["Subject"] == "Cells: broken failed in cells_broken"
    words = part(mail, "plain")
    assert "S3 is away: check AWS_ENDPOINT_URL" in words
    assert "second line" not in words
    assert "What it does:  Read what is not there." in words
    assert f"https://airflow.example.com/dags/cells_broken/runs/{run.run_id.replace(':', '%3A')[:20]}" in words
    assert "Try:           2, the last" in words


@pytest.mark.slow
def test_notifier_when_no_mail_can_be_sent_then_the_tasks_own_error_stays(
    failing_dag: Any, cells: str, post: Post, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    post.connection(host="127.0.0.1", port=free_port(), extra={"from_email": SENDER, "disable_ssl": True})
    run = failing_dag.test(logical_date=None)
    assert str(run.state) == "failed"
    output = "".join(capfd.readouterr()) + caplog.text
    assert "S3 is away: check AWS_ENDPOINT_URL" in output
    assert output.count("The failure could not be mailed") == 1


def test_notifier_when_the_context_is_of_a_killed_task_then_the_reason_is_told(cells: str, post: Post):
    class Instance:
        dag_id, task_id, run_id, map_index, try_number = "cells_retrain", "train", "manual__1", 2, 3
        rendered_map_index = "batch 3"

    InspectlineNotifier("cells").notify({"ti": Instance(), "reason": "heartbeat timeout"})  # type: ignore[arg-type, typeddict-item]
    (mail,) = post.mails()
    assert "heartbeat timeout" in part(mail, "plain")
    assert "/tasks/train/mapped/2?try_number=3" in part(mail, "plain")


def test_notifier_when_the_project_file_is_broken_then_one_line_in_the_log(
    cells: str, post: Post, caplog: pytest.LogCaptureFixture
):
    InspectlineNotifier("unknown").notify({})
    assert "The failure could not be mailed" in caplog.text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StorageError("S3 is away\nsecond"), "S3 is away"),
        (ValueError("\n  odd\nmore"), "ValueError: odd"),
        (KeyError(), "KeyError"),
        ("killed", "killed"),
    ],
)
def test_one_line_when_an_error_has_many_then_the_first_that_says_something(error: Any, line: str):
    assert one_line(error) == line
