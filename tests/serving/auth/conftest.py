"""Serving with accounts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from sqlalchemy import delete

from pipelines.catalogue import transaction, users
from pipelines.catalogue.schema import users as table
from tests.conftest import Projects
from tests.serving.conftest import Server, hashed

PASSWORD = "a password of some length"
ROOT, ANN = ("root", PASSWORD), ("Ann", PASSWORD + " too")


@dataclass
class Guarded:
    """Serving with accounts: an administrator `root` and a user `Ann`."""

    server: Server

    def call(self, method: str, path: str, auth=None, token: str = "", remote: str = "", **sent) -> requests.Response:
        """Make one call on a connection of its own; with `remote` as a proxy does for somebody there."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"X-Forwarded-For": remote} if remote else {}
        return requests.request(
            method, self.server.address + path, auth=auth, headers=headers | sent.pop("headers", {}), timeout=30, **sent
        )

    def login(self, name: str, password: str, remote: str = "") -> requests.Response:
        """Ask for a token."""
        return self.call("POST", "/login", json={"name": name, "password": password}, remote=remote)

    def output(self) -> str:
        """Return the log."""
        return self.server.log.read_text(encoding="utf-8")


def fill() -> None:
    """Make the two accounts anew."""
    with transaction() as connection:
        connection.execute(delete(table))
        users.add(connection, ROOT[0], hashed(ROOT[1]), "administrator")
        users.add(connection, ANN[0], hashed(ANN[1]))


@pytest.fixture
def guarded(
    projects: Projects, database: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Guarded]:
    """Serving that is started with accounts, and no registry to be found."""
    projects.write("line")
    fill()
    server = Server(
        {
            "INSPECTLINE_DEFAULT_PROJECT": "line",
            "INSPECTLINE_POLL_SECONDS": "5",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
            "HOST": "127.0.0.1",
        },
        tmp_path / "serving.log",
    )
    yield Guarded(server)
    if server.process is not None and server.process.poll() is None:
        server.end()
