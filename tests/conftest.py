"""Real parts for every test: an S3 endpoint over HTTP, SQLite and PostgreSQL, an MLflow server, project files."""

import atexit
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from hypothesis import settings as hypothesis_settings

# How long an example takes says something about the machine and its other work, not about the code.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

# The suite never talks to a stack that happens to run on this machine.
for _name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "MLFLOW_TRACKING_URI", "INSPECTLINE_PROJECTS"):
    os.environ.pop(_name, None)
# As the local stack and compose do: MLflow's thread of telemetry changes the environment while others read it.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1")
os.environ.update(
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
    TF_CPP_MIN_LOG_LEVEL="3",
    OMP_NUM_THREADS="2",
)

# Airflow reads its settings when the first test imports it: a home of the session's own, and the repository's DAGs.
REPOSITORY = Path(__file__).resolve().parent.parent
_airflow_home = tempfile.mkdtemp(prefix="inspectline-airflow-")
atexit.register(shutil.rmtree, _airflow_home, ignore_errors=True)
os.environ.update(
    AIRFLOW_HOME=_airflow_home,
    AIRFLOW__CORE__DAGS_FOLDER=str(REPOSITORY / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(REPOSITORY / "plugins"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
)


# Ports below those that the system gives to outgoing connections; each process of a suite run in several has its own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Two suites at once on one machine begin elsewhere.
_PORTS = (15_000 + 2_000 * _WORKER + number % 2_000 for number in itertools.count(os.getpid()))


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on now, and that was not returned lately."""
    for port in itertools.islice(_PORTS, 2_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no TCP port is free for tests")


def wait_until(
    ready: Callable[[], bool], seconds: float, what: str, process: subprocess.Popen[Any] | None = None
) -> None:
    """Wait until `ready()`; fail, naming `what`, when time is up or the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with status {process.returncode}")
        if ready():
            return
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not ready within {seconds:g} s")


def answers(url: str) -> Callable[[], bool]:
    """Return a check that tells whether `url` answers 200."""

    def check() -> bool:
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    return check


def end_process(process: subprocess.Popen[Any]) -> None:
    """End a process that was started in a session of its own, with its children."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sig)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
    process.wait(timeout=10)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one S3 server for the session."""
    port = free_port()
    folder = tmp_path_factory.mktemp("s3")
    log = (folder / "moto.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=log,
        stderr=log,
        cwd=folder,  # it opens a recording file there
        start_new_session=True,
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        wait_until(answers(f"{endpoint}/moto-api/"), 60, "moto server", process)
        yield endpoint
    finally:
        end_process(process)
        log.close()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the process at the session's S3 server and return its address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return s3_endpoint


@pytest.fixture
def bucket(s3: str) -> str:
    """Make a fresh bucket and return its name."""
    from pipelines.storage.s3 import Storage

    name = f"test-{uuid.uuid4().hex[:12]}"
    Storage(name).ensure_bucket()
    return name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a fresh local cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INSPECTLINE_CACHE", str(folder))
    return folder


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use a fresh, migrated SQLite catalogue and return its address."""
    from pipelines.catalogue import migrate

    url = f"sqlite:///{tmp_path / 'catalogue.db'}"
    monkeypatch.setenv("INSPECTLINE_DATABASE_URL", url)
    migrate()
    return url


def _postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        raise RuntimeError("PostgreSQL's programs are missing: install Debian's package 'postgresql' (see .ci/run)")
    return (found[-1] if found else Path(str(on_path))).parent


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a PostgreSQL server for the session and return its address, without a database's name."""
    programs = _postgres_programs()
    # A short folder of its own, readable by the user that PostgreSQL insists on where we are root.
    folder = Path(f"/tmp/inspectline-pg-{uuid.uuid4().hex[:8]}")
    folder.mkdir(mode=0o755)
    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        options = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    data = folder / "data"
    port = free_port()
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "inspectline", "--auth=trust", "-E", "UTF8", "--no-sync", "--locale=C"],
        check=True,
        capture_output=True,
        cwd=folder,
        **options,
    )
    log = (tmp_path_factory.mktemp("postgres") / "postgres.log").open("wb")
    process = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", folder]
        + ["-c", "fsync=off", "-c", "max_connections=200"],
        stdout=log,
        stderr=log,
        start_new_session=True,
        cwd=folder,
        **options,
    )

    def ready() -> bool:
        return (
            subprocess.run(
                [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-U", "inspectline"], capture_output=True
            ).returncode
            == 0
        )

    try:
        wait_until(ready, 60, "PostgreSQL", process)
        yield f"postgresql+psycopg://inspectline@127.0.0.1:{port}"
    finally:
        end_process(process)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """Make a fresh PostgreSQL database and return its address."""
    from sqlalchemy import create_engine, text

    name = f"t{uuid.uuid4().hex[:12]}"
    engine = create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{postgres_server}/{name}"


@pytest.fixture
def postgres(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Use a fresh, migrated PostgreSQL catalogue and return its address."""
    from pipelines.catalogue import engine, migrate

    monkeypatch.setenv("INSPECTLINE_DATABASE_URL", postgres_url)
    migrate()
    yield postgres_url
    engine().dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def each_database(request: pytest.FixtureRequest) -> str:
    """Run the test once on SQLite and once on PostgreSQL."""
    return str(request.getfixturevalue("database" if request.param == "sqlite" else "postgres"))


@dataclass(frozen=True)
class Projects:
    """A folder of project files for one test."""

    folder: Path
    bucket: str

    def write(self, name: str, **keys: Any) -> Path:
        """Write `<name>.yaml` with the test's bucket and `keys`, nested as in the file, and return its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"bucket": self.bucket} | keys), encoding="utf-8")
        return path


@pytest.fixture
def projects(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Projects:
    """Use a fresh folder of project files whose bucket is the test's."""
    folder = tmp_path / "projects"
    folder.mkdir()
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(folder))
    return Projects(folder, bucket)


@pytest.fixture(scope="session")
def mlflow_process(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one MLflow server for the session, on SQLite, artefacts proxied to S3."""
    import boto3

    folder = tmp_path_factory.mktemp("mlflow")
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="mlflow-artifacts")
    port = free_port()
    log = (folder / "mlflow.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        + ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination"]
        + ["s3://mlflow-artifacts/mlflow"],
        stdout=log,
        stderr=log,
        cwd=folder,
        start_new_session=True,
        env=os.environ
        | {
            "AWS_ENDPOINT_URL": s3_endpoint,
            "MLFLOW_S3_ENDPOINT_URL": s3_endpoint,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(answers(f"{address}/health"), 120, "MLflow server", process)
        yield address
    finally:
        end_process(process)
        log.close()


@pytest.fixture
def mlflow_server(mlflow_process: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the process at the session's MLflow server and return its address."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_process)
    mlflow.set_tracking_uri(mlflow_process)
    return mlflow_process


@pytest.fixture
def project_name() -> str:
    """Return a name that no other test of the session uses, so that tests share the MLflow server without meeting."""
    return f"p{uuid.uuid4().hex[:10]}"
