"""An MLflow that takes connections and does not answer: seen within seconds, and nobody waits for it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import requests

from pipelines.errors import RegistryAway
from pipelines.registry.rest import ANSWER_SECONDS, call
from serving.models.served_models import ProjectState
from tests.conftest import Projects, wait_until
from tests.serving.conftest import Registry, Relay, Server


class Hung:
    """A TCP server that accepts connections, and sends what it is given, piece by piece."""

    def __init__(self, pieces: tuple[bytes, ...] = (), pause: float = 0.5):
        self._pieces, self._pause = pieces, pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._send, args=(client,), daemon=True).start()

    def _send(self, client: socket.socket) -> None:
        with suppress(OSError):
            for piece in self._pieces:
                client.sendall(piece)
                time.sleep(self._pause)

    def end(self) -> None:
        """Close everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for connection in (self._listener, *self._open):
            connection.close()


@pytest.fixture
def hung() -> Iterator[Hung]:
    """A server that never answers."""
    server = Hung()
    yield server
    server.end()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [(), (HEAD,), (HEAD, *[b" "] * 60), (CHUNKED, *[b"1\r\n \r\n"] * 60)],
    ids=["mute", "head", "drip", "chunks"],
)
def test_call_when_the_registry_hangs_then_an_error_within_seconds(
    pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
):
    server = Hung(pieces)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    began = time.monotonic()
    with pytest.raises(RegistryAway) as error:
        call("registered-models/get", {"name": "line"})
    server.end()
    assert time.monotonic() - began < 2 * ANSWER_SECONDS + 1
    assert "\n" not in str(error.value)


def test_model_calls_when_the_registry_hangs_then_503_in_one_line_and_status_says_since_when(
    server: Server, registry: Registry, projects: Projects, hung: Hung, good_file: bytes
):
    version = registry.register()
    for number in range(4):
        projects.write(f"{registry.project}_{number}")
    server.start().until_version(version)
    server.end()
    began = datetime.now(UTC) - timedelta(seconds=1)
    server.start(MLFLOW_TRACKING_URI=hung.address)

    def problems() -> list[str | None]:
        return [state["last_poll"]["problem"] for state in server.status()["projects"].values()]

    for method, path in (
        ("POST", f"/models/{version}/promote"),
        ("POST", f"/projects/{registry.project}_1/models/2/promote"),
        ("POST", "/models/release"),
        ("GET", "/models"),
    ):
        asked = time.monotonic()
        answer = requests.request(method, server.address + path, timeout=30)
        assert time.monotonic() - asked < ANSWER_SECONDS + 7, path
        assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
        assert "MLflow" in answer.json()["error"]
    wait_until(lambda: all(problems()), 30, "a problem of every project")
    since = {datetime.fromisoformat(str(problem).rpartition("since ")[2]) for problem in problems()}
    assert len(since) == 1
    assert began <= since.pop() <= datetime.now(UTC)


def test_poll_when_the_registry_hangs_and_comes_back_then_served_on_and_the_problem_goes(
    server: Server, registry: Registry, hung: Hung, good_file: bytes
):
    version = registry.register()
    with Relay(registry.address) as relay:
        server.start(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{relay.port}").until_version(version)
        relay.down()
        relay._target = ("127.0.0.1", int(hung.address.rpartition(":")[2]))
        relay.up()
        wait_until(lambda: server.status()["last_poll"]["problem"] is not None, 30, "a problem")
        assert server.predict(good_file).status_code == 200
        relay.down()
        relay._target = ("127.0.0.1", int(registry.address.rpartition(":")[2]))
        relay.up()
        wait_until(lambda: server.status()["last_poll"]["problem"] is None, 30, "no problem")


def test_status_when_a_poll_does_not_return_then_a_problem_since_the_last_one():
    state, overdue = ProjectState("line"), timedelta(seconds=15)
    started = datetime.now(UTC)
    assert state.report(overdue, started)["last_poll"] == {"at": None, "problem": None}
    started -= timedelta(minutes=1)
    assert started.isoformat(timespec="seconds") in state.report(overdue, started)["last_poll"]["problem"]
    state.polled_at = datetime.now(UTC)
    assert state.report(overdue, started)["last_poll"]["problem"] is None
    state.polled_at -= timedelta(seconds=20)
    problem = state.report(overdue, started)["last_poll"]["problem"]
    assert state.polled_at.isoformat(timespec="seconds") in problem
