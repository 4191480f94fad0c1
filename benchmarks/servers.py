"""Starts the servers that the benchmarks measure, each with all its processes on one core."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import requests

from benchmarks.environment import PROJECT, Stage, free_port
from pipelines.config.settings import REPOSITORY

SERVERS_CORE, CLIENTS_CORE = 0, 1


class Server:
    """A contender's processes, all on one core."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, path: str, body: str):
        self.process, self.address, self.path, self.body = process, address, path, body

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process group, in seconds."""
        ticks = sum(int(fields[11]) + int(fields[12]) for _, fields in self._processes())
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self, kind: str) -> float:
        """Return the sum of the resident memory of all processes, in MiB: current (`VmRSS`) or peak (`VmHWM`)."""
        kilobytes = 0
        for entry, _ in self._processes():
            lines = (entry / "status").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
        return kilobytes / 1024

    def _processes(self) -> Iterator[tuple[Path, list[str]]]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[2]) == self.process.pid:
                    yield entry, fields


@contextmanager
def _started(
    command: list[str], address: str, ready: str, path: str, body: str, **environment: str
) -> Iterator[Server]:
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVERS_CORE), *command],
        cwd=REPOSITORY,
        # `mlflow models serve` starts a program of the virtual environment by name.
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if requests.get(address + ready, timeout=2).status_code < 500:
                    break
            except requests.RequestException:
                pass
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} does not answer at {address}{ready}")
            time.sleep(0.2)
        yield Server(process, address, path, body)
    finally:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, sig)
                process.wait(timeout=20)


def serving() -> AbstractContextManager[Server]:
    """Run serving with the command of its container."""
    port = free_port()
    command = [sys.executable, "-m", "serving"]
    return _started(command, f"http://127.0.0.1:{port}", "/health/ready", "/predict", "image", PORT=str(port))


def mlflow_serve() -> AbstractContextManager[Server]:
    """Run MLflow's scoring server on the registered version."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        f"models:/{PROJECT}/1",
        "--env-manager",
        "local",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return _started(command, f"http://127.0.0.1:{port}", "/ping", "/invocations", "tensor")


def plain_flask(stage: Stage) -> AbstractContextManager[Server]:
    """Run a Flask view around `keras.Model.predict`."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--threads", "8", "--timeout", "300"]
    command += ["benchmarks.serving_baselines:plain_view()"]
    model = str(stage.package / "model.keras")
    return _started(
        command, f"http://127.0.0.1:{port}", "/", "/predict", "image", MODEL=model, KERAS_BACKEND="tensorflow"
    )
