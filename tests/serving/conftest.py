"""A real serving process, a registry with real packages, and images to send."""

import functools
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from sqlalchemy import RowMapping, select

from pipelines.catalogue import connect, passwords
from pipelines.catalogue.schema import predictions
from pipelines.config.settings import REPOSITORY
from pipelines.registry.package import package_digest
from tests.conftest import Projects, answers, free_port, wait_until
from tests.pipelines.packages import defective_image, good_image, make_package

hashed = functools.cache(passwords.hash_password)  # argon2 takes its time on purpose


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """Return pixels uint8 [H, W, 3] as an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def good_file() -> bytes:
    """An image without a defect."""
    return encoded(good_image(np.random.default_rng(7)))


@pytest.fixture(scope="session")
def bad_file() -> bytes:
    """An image with a defect."""
    return encoded(defective_image(np.random.default_rng(7)))


@dataclass
class Registry:
    """Registers small packages in the real MLflow server, as the pipeline does, and moves the alias."""

    address: str
    folder: Path
    project: str
    client: Any = None
    registered: int = 0

    def register(
        self,
        *,
        champion: bool = True,
        remake: Callable[[Path], None] | None = None,
        spoil: Callable[[Path], None] | None = None,
        project: str = "",
        card_project: str = "",
        make: Callable[..., Path] = make_package,
        tags: dict[str, str] | None = None,
        **card: Any,
    ) -> str:
        """Register a package and return its version.

        `make` writes the package, `remake` changes it before its digest is taken, `spoil` afterwards.
        """
        name = project or self.project
        self.registered += 1
        package = make(self.folder / f"package-{self.registered}", project=card_project or name, **card)
        if remake:
            remake(package)
        digest = package_digest(package)
        if spoil:
            spoil(package)
        with suppress(Exception):
            self.client.create_registered_model(name)
        experiment = self.client.get_experiment_by_name("serving")
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment("serving")
        run = self.client.create_run(experiment_id)
        self.client.log_artifacts(run.info.run_id, str(package), "model")
        version = self.client.create_model_version(
            name, f"{run.info.artifact_uri}/model", run.info.run_id, tags={"package_sha256": digest} | (tags or {})
        )
        if champion:
            self.client.set_registered_model_alias(name, "champion", version.version)
        return str(version.version)

    def promote(self, version: str) -> None:
        """Move the alias."""
        self.client.set_registered_model_alias(self.project, "champion", version)


@pytest.fixture
def registry(mlflow_server: str, tmp_path: Path) -> Registry:
    """An empty registered model, whose project's name no other test uses."""
    from mlflow import MlflowClient

    return Registry(mlflow_server, tmp_path / "packages", f"line_{uuid.uuid4().hex[:8]}", MlflowClient(mlflow_server))


@dataclass
class Server:
    """A serving process that serves one project by default."""

    environment: dict[str, str]
    log: Path
    address: str = ""
    process: subprocess.Popen[bytes] | None = None
    session: requests.Session = field(default_factory=requests.Session)

    def start(self, **environment: str) -> "Server":
        """Start it on a free port and wait until it answers."""
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.environment |= environment
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                cwd=REPOSITORY,
                env=os.environ | self.environment | {"PORT": str(port)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(answers(f"{self.address}/health/live"), 30, f"serving ({self.log})", self.process)
        return self

    def predict(self, data: bytes, path: str = "/predict") -> requests.Response:
        """Upload one image."""
        return self.session.post(self.address + path, files={"file": ("image.png", data)}, timeout=30)

    def predict_url(self, url: Any, **body: Any) -> requests.Response:
        """Send an address."""
        return self.session.post(f"{self.address}/predict", json={"image_url": url} | body, timeout=60)

    def status(self) -> dict[str, Any]:
        """Return what /status says."""
        answer: dict[str, Any] = self.session.get(f"{self.address}/status", timeout=30).json()
        return answer

    def until_version(self, version: str, seconds: float = 20) -> "Server":
        """Wait until `version` serves."""
        wait_until(lambda: self.status()["version"] == version, seconds, f"version {version}, see {self.log}")
        return self

    def end(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """End it; with SIGKILL all its processes. Return its exit status."""
        assert self.process is not None
        if sig == signal.SIGKILL:
            os.killpg(self.process.pid, sig)
        else:
            self.process.send_signal(sig)
        return self.process.wait(timeout=60)

    def workers(self) -> list[int]:
        """Return the processes that answer: the process itself, or those that it has spawned."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        spawned = [
            int(number) for number in children.split() if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()
        ]
        return spawned or [self.process.pid]

    def cpu_seconds(self) -> float:
        """Return the processor time that the processes which answer have used: no other work is in it."""
        fields = [
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split() for pid in self.workers()
        ]
        return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")

    def lines(self) -> list[dict[str, Any]]:
        """Return the log, line by line; a request's own is written once its answer is on its way."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line]


@pytest.fixture
def server(projects: Projects, registry: Registry, database: str, cache: Path, tmp_path: Path) -> Iterator[Server]:
    """Serving for the registry's project, not started yet; polls five times a second."""
    projects.write(registry.project)
    server = Server(
        {
            "INSPECTLINE_DEFAULT_PROJECT": registry.project,
            "INSPECTLINE_POLL_SECONDS": "0.2",
            "INSPECTLINE_AUTH": "none",
            "HOST": "127.0.0.1",
        },
        tmp_path / "serving.log",
    )
    yield server
    if server.process is not None and server.process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(timeout=10)


class Relay:
    """Passes TCP connections on to a real server, and can be taken away: the server stopped, as its clients see it."""

    def __init__(self, target: str):
        host, _, port = target.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = free_port()

    def __enter__(self) -> "Relay":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._listener is not None:
            # Closing alone leaves it listening for as long as a thread waits in accept().
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def rows() -> Sequence[RowMapping]:
    """Return the catalogue's predictions, oldest first."""
    with connect() as connection:
        return connection.execute(select(predictions).order_by(predictions.c.id)).mappings().all()


def until_rows(count: int, seconds: float = 15) -> Sequence[RowMapping]:
    """Wait until the catalogue holds `count` predictions, and return them."""
    wait_until(lambda: len(rows()) >= count, seconds, f"{count} predictions in the catalogue")
    return rows()
