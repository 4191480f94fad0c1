"""Start and stop the stack: databases brought up to date, programs started, health awaited, Airflow told its pool."""

import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from include.stack import health, processes, supervision
from include.stack.airflow_rest import Airflow
from include.stack.environment import BUCKET, environment
from include.stack.errors import StackError
from include.stack.layout import ENV_FILE, Stack, taken_ports
from pipelines.storage.files import write_atomically

BOOT_SECONDS = 600.0  # a minute is usual; two cores that others use as well may need several
_TRIES = 6
Report = Callable[[Mapping[str, str]], None]  # called again and again with each program's health


def up(stack: Stack, report: Report, env_file: Path | None = ENV_FILE) -> dict[str, str]:
    """Start the stack, or what is missing of it, and return its environment once everything is healthy.

    Raises:
        StackError: a port is taken, or a program does not become healthy.
    """
    stack.make_folders()
    with _alone(stack):
        environ = environment(stack, env_file)
        if supervision.running(stack) and not _same(stack, environ):
            supervision.stop(stack)
        if not supervision.running(stack):
            processes.end(stack.home, grace=5.0)
            if taken := taken_ports(stack):
                raise StackError("\n".join(taken))
            stack.remember_ports()
            report({"databases": "brought up to date"})
            _migrate(stack, environ)
            supervision.start(stack, environ)
        else:
            for name, info in supervision.states(stack).items():
                if info["statename"] in ("STOPPED", "EXITED", "FATAL"):
                    supervision.start_program(stack, name)
        await_health(stack, report)
        _make_bucket(stack, environ)
        Airflow.of(stack, environ).set_pool("gpu", 1, "One training at a time on each GPU.")
    return environ


def down(stack: Stack) -> None:
    """Stop the stack and leave no process behind."""
    stack.make_folders()
    with _alone(stack):
        supervision.stop(stack)
        stack.forget_ports()


def await_health(stack: Stack, report: Report, seconds: float = BOOT_SECONDS) -> None:
    """Wait until every program is healthy.

    Raises:
        StackError: one is not within `seconds`, or ends again and again.
    """
    end = time.monotonic() + seconds
    seen: dict[str, set[int]] = {}
    while True:
        found = health.check(stack)
        report(found)
        ill = {name: state for name, state in found.items() if state != "healthy"}
        if not ill:
            return
        for name, info in supervision.states(stack).items():
            seen.setdefault(name, set()).add(int(info["pid"]))
            if name in ill and len(seen[name]) > _TRIES:
                raise StackError(f"{name} ends again and again: see {stack.logs / name}.log")
        if time.monotonic() > end:
            name, state = next(iter(ill.items()))
            raise StackError(f"{name} is not healthy after {seconds:g} s ({state}): see {stack.logs / name}.log")
        time.sleep(1.0)


@contextmanager
def _alone(stack: Stack) -> Iterator[None]:
    """Keep two commands from starting or stopping the same stack at once."""
    lock = FileLock(stack.home / ".lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise StackError(f"another command is starting or stopping the stack of {stack.home}: wait for it") from None
    try:
        yield
    finally:
        lock.release()


def _same(stack: Stack, environ: dict[str, str]) -> bool:
    try:
        return (stack.run / "digest").read_text() == supervision.digest(stack, environ)
    except FileNotFoundError:
        return False


def _migrate(stack: Stack, environ: dict[str, str]) -> None:
    """Bring Airflow's database and the catalogue up to date; Airflow's, which takes long, once for each version."""
    version = importlib.metadata.version("apache-airflow")
    stamp = stack.airflow / "migrated"
    commands = {"pipelines.catalogue": ["migrate"]}
    fresh = not (stack.airflow / "airflow.db").exists()
    if fresh or not stamp.exists() or stamp.read_text() != version:
        commands["airflow"] = ["db", "migrate"]
    with (stack.logs / "migrate.log").open("ab") as log:
        running = {
            module: subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", module, *arguments], cwd=stack.home, env=environ, stdout=log, stderr=log
            )
            for module, arguments in commands.items()
        }
        failed = [module for module, process in running.items() if process.wait() != 0]
    if failed:
        raise StackError(f"the database of {failed[0]} cannot be brought up to date: see {stack.logs / 'migrate.log'}")
    write_atomically(stamp, version, durable=True)


def _make_bucket(stack: Stack, environ: dict[str, str]) -> None:
    """Make the bucket of the stack and those that its project files name."""
    script = (
        "from pipelines.config.project import Project, load_projects\n"
        "from pipelines.storage.s3 import Storage\n"
        "projects = [p for p in load_projects().values() if isinstance(p, Project)]\n"
        f"for bucket in sorted({{{BUCKET!r}}} | {{p.bucket for p in projects}}):\n"
        "    Storage(bucket).ensure_bucket()\n"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StackError(f"cannot make the S3 bucket: {done.stderr.strip().splitlines()[-1]}")
