"""The repository's DAGs, parsed as Airflow parses them, and a project to run them on."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller
from sqlalchemy import select

from pipelines.catalogue import connect, requests, transaction
from pipelines.storage.s3 import Storage
from tests.conftest import REPOSITORY, free_port

DAGS = REPOSITORY / "dags"
KINDS = ("ingest", "retrain", "watch", "evaluate", "drift")


def parse(folder: Path = DAGS) -> Any:
    """Return what Airflow finds in the DAG files, for the project files that the environment names now."""
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")


@pytest.fixture(scope="session")
def shipped() -> Any:
    """Return the DAGs of the projects that the repository ships."""
    return parse()


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Make Airflow's own database in the session's Airflow home, with the pool that training waits for."""
    from airflow.models.pool import Pool
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    with create_session() as session:
        Pool.create_or_update_pool("gpu", slots=1, description="", include_deferred=False, session=session)


@dataclass
class Line:
    """A project on real parts: an inbox in S3, a catalogue, MLflow, a mail server; and its DAGs."""

    project: str
    bucket: str
    folder: Path
    mails: list[EmailMessage]

    def declare(self, name: str | None = None, **keys: Any) -> str:
        """Write the file of a project, by default the line's own, and return its name."""
        name = name or self.project
        content = {"bucket": self.bucket, "recipients": ["quality@example.com"], **keys}
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return name

    def send(self, path: str, data: bytes, project: str | None = None) -> None:
        """Put an object into the inbox."""
        Storage(self.bucket).put(f"{project or self.project}/inbox/{path}", data)

    def ask(self, kind: str, payload: dict[str, Any] | None = None, project: str | None = None) -> int:
        """Write a request row, as serving does, and return its id."""
        with transaction() as connection:
            return requests.ask(connection, project or self.project, kind, payload or {}, created_by="line 3")

    def request(self, request_id: int, project: str | None = None) -> Any:
        """Return a request's row."""
        with connect() as connection:
            return requests.find(connection, project or self.project, request_id)

    def subjects(self) -> list[str]:
        """Return the subjects of the mails since this was last asked, and forget them."""
        subjects = [str(mail["Subject"]) for mail in self.mails]
        self.mails.clear()
        return subjects

    def inbox(self) -> list[str]:
        """Return the keys of what lies in the inbox."""
        return [item.key for item in Storage(self.bucket).list(f"{self.project}/inbox/")]

    def run(self, kind: str, conf: dict[str, Any] | None = None, project: str | None = None) -> "Run":
        """Run a DAG whole, as Airflow would, and return what came of it."""
        dag = parse().dags[f"{project or self.project}_{kind}"]
        return Run(dag.test(logical_date=None, run_conf=conf))


class Run:
    """What came of a DAG run; read at once, since the next `dag.test()` clears earlier runs of the same DAG."""

    def __init__(self, run: Any) -> None:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        self.run = run
        self.run_id = str(run.run_id)
        self.state = str(run.state)
        instances = run.get_task_instances()
        self.states = {_name(ti): str(ti.state) for ti in instances}
        self.tries = {_name(ti): ti.try_number for ti in instances}
        self.labels = [ti.rendered_map_index for ti in instances if ti.rendered_map_index]
        of_run = (XComModel.dag_id == run.dag_id, XComModel.run_id == run.run_id)
        with create_session() as session:
            rows = list(session.scalars(select(XComModel).where(*of_run)))
            self._xcoms = {(row.task_id, row.key): XComModel.deserialize_value(row) for row in rows}
            self.largest_xcom = max(len(json.dumps(row.value)) for row in rows)

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """Return what a task left for others, or None."""
        return self._xcoms.get((task_id, key))


def _name(ti: Any) -> str:
    return ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"


class _Keep:
    """Keeps the mails that arrive."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content, policy=default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture(scope="session")
def mail_server() -> Iterator[tuple[int, list[EmailMessage]]]:
    """Run an SMTP server and return its port, and the mails that it gets."""
    keep = _Keep()
    server = Controller(keep, hostname="127.0.0.1", port=free_port())
    server.start()
    yield server.port, keep.mails
    server.stop()


@pytest.fixture(scope="module")
def line(
    airflow_database: None,
    s3_endpoint: str,
    mlflow_process: str,
    mail_server: tuple[int, list[EmailMessage]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Line]:
    """Set up a project for the module: its training takes seconds, its images come from the tests."""
    from pipelines.catalogue import engine, migrate

    folder = tmp_path_factory.mktemp("line")
    (folder / "projects").mkdir()
    port, mails = mail_server
    sender = {"from_email": "inspectline@example.com", "disable_ssl": True, "disable_tls": True}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": sender}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        environment.setenv("MLFLOW_TRACKING_URI", mlflow_process)
        environment.setenv("INSPECTLINE_DATABASE_URL", f"sqlite:///{folder / 'catalogue.db'}")
        environment.setenv("INSPECTLINE_PROJECTS", str(folder / "projects"))
        environment.setenv("INSPECTLINE_CACHE", str(folder / "cache"))
        environment.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        migrate()
        line = Line(f"p{uuid.uuid4().hex[:10]}", f"test-{uuid.uuid4().hex[:12]}", folder / "projects", mails)
        Storage(line.bucket).ensure_bucket()
        yield line
        engine().dispose()
