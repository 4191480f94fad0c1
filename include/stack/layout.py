"""Where a local stack keeps its things, and on which ports it listens."""

import json
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from include.stack.envfile import read_env
from include.stack.errors import StackError
from pipelines.config.settings import REPOSITORY
from pipelines.storage.files import write_atomically

HOST = "127.0.0.1"
ENV_FILE = REPOSITORY / ".env"
# What listens: (what people call it, the variable that moves it, its usual port).
LISTENERS = {
    "airflow": ("Airflow", "AIRFLOW_PORT", 8080),
    "mlflow": ("MLflow", "MLFLOW_PORT", 5000),
    "serving": ("serving", "SERVING_PORT", 8000),
    "s3": ("S3", "S3_PORT", 9000),
    "smtp": ("the mailbox", "SMTP_PORT", 1025),
}
_LONGEST_SOCKET = 100  # bytes; a Unix socket's path holds 107


@dataclass(frozen=True)
class Stack:
    """One local stack: its folder and its ports by listener (`LISTENERS`)."""

    home: Path
    ports: Mapping[str, int]

    @property
    def logs(self) -> Path:
        """The folder of the programs' own logs; Airflow's task logs are in `airflow / logs`."""
        return self.home / "log"

    @property
    def run(self) -> Path:
        """The folder of what is only true while the stack runs."""
        return self.home / "run"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.home / "airflow"

    @property
    def objects(self) -> Path:
        """The folder that is served as S3: one folder a bucket, one file an object."""
        return self.home / "s3"

    @property
    def mail(self) -> Path:
        """The Maildir that every mail ends in."""
        return self.home / "mail"

    @property
    def projects(self) -> Path:
        """The folder of project files written by `make import` and `make demo`."""
        return self.home / "projects"

    @property
    def secrets(self) -> Path:
        """The file of generated passwords and keys."""
        return self.home / "secrets.env"

    @property
    def socket(self) -> Path:
        """The supervisor's Unix socket; beneath the temporary folder if the stack's own path is too long for one."""
        usual = self.run / "supervisor.sock"
        if len(os.fsencode(usual)) <= _LONGEST_SOCKET:
            return usual
        digest = sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"inspectline-{os.getuid()}-{digest}" / "supervisor.sock"

    def url(self, listener: str, host: str = HOST) -> str:
        """Return the address of a listener that speaks HTTP."""
        return f"http://{host}:{self.ports[listener]}"

    def make_folders(self) -> None:
        """Make every folder that the programs expect."""
        for folder in (self.logs, self.run, self.airflow, self.objects, self.projects, self.home / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
        for private in (self.run, self.socket.parent):
            private.mkdir(parents=True, exist_ok=True)
            private.chmod(0o700)

    def remember_ports(self) -> None:
        """Note the ports, so that other commands find the running stack without being told again."""
        write_atomically(self.run / "ports.json", json.dumps(dict(self.ports)), durable=True)

    def forget_ports(self) -> None:
        """Take the note away: the next start uses what is asked for then."""
        (self.run / "ports.json").unlink(missing_ok=True)


def open_stack(
    home: Path | None = None, environ: Mapping[str, str] | None = None, env_file: Path | None = ENV_FILE
) -> Stack:
    """Return the stack of `home` (default: INSPECTLINE_HOME, else `var` in the repository).

    A port is the one its variable gives in `environ` (default: the process's), else the one that the stack runs with,
    else the one in `env_file`, else the usual one.

    Raises:
        StackError: a port is not one, or `env_file` cannot be read.
    """
    env = os.environ if environ is None else environ
    folder = home or Path(env.get("INSPECTLINE_HOME") or REPOSITORY / "var")
    folder = folder.expanduser().resolve()
    said = read_env(env_file) if env_file and env_file.exists() else {}
    try:
        runs_with = json.loads((folder / "run" / "ports.json").read_text())
    except (OSError, ValueError):
        runs_with = {}
    ports = {}
    for listener, (_, variable, usual) in LISTENERS.items():
        value = env.get(variable) or runs_with.get(listener) or said.get(variable) or usual
        ports[listener] = _port(variable, str(value))
    _refuse_shared(ports)
    return Stack(folder, ports)


def _port(variable: str, value: str) -> int:
    if not value.strip().isdecimal() or not 1 <= int(value) <= 65535:
        raise StackError(f"{variable} is {value!r}: give a port between 1 and 65535, such as {variable}=18080")
    return int(value)


def _refuse_shared(ports: Mapping[str, int]) -> None:
    seen: dict[int, str] = {}
    for listener, port in ports.items():
        variable = LISTENERS[listener][1]
        if port in seen:
            raise StackError(f"{seen[port]} and {variable} are both {port}: give each its own port")
        seen[port] = variable


def taken_ports(stack: Stack) -> list[str]:
    """Return a line for each of the stack's ports that something else listens on: which, and what to change."""
    lines = []
    for listener, port in stack.ports.items():
        name, variable, _ = LISTENERS[listener]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except PermissionError:
                lines.append(f"port {port} for {name} needs root: choose one above 1023 with {variable}=… make up")
            except OSError:
                lines.append(
                    f"port {port} for {name} is taken by another program: "
                    f"stop that, or choose another port with {variable}=… make up"
                )
    return lines
