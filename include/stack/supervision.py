"""supervisord: its configuration, starting it, and talking to it over its socket."""

import os
import shlex
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from include.stack import processes
from include.stack.errors import StackError
from include.stack.layout import Stack
from include.stack.programs import Program, programs
from pipelines.storage.files import write_atomically

SUPERVISOR = "supervisord"
_ALREADY = (60, 70)  # supervisor's faults ALREADY_STARTED and NOT_RUNNING


def configuration(stack: Stack) -> str:
    """Return the text of supervisord.conf for the stack."""
    owner = "user=root\n" if os.geteuid() == 0 else ""  # it warns at every start unless root is meant
    head = f"""; Made by `make up`; changes here are lost.
[unix_http_server]
file={_escape(stack.socket)}
chmod=0600

[supervisord]
logfile={_escape(stack.logs / "supervisord.log")}
logfile_maxbytes=5MB
logfile_backups=1
pidfile={_escape(stack.run / "supervisord.pid")}
directory={_escape(stack.home)}
{owner}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{_escape(stack.socket)}
"""
    return head + "".join(_section(stack, program) for program in programs(stack))


def _section(stack: Stack, program: Program) -> str:
    after = ["--after", str(stack.ports[program.after])] if program.after else []
    launcher = [sys.executable, "-m", "include.stack.launch", str(stack.home), program.name, *after, "--"]
    command = shlex.join([*launcher, *program.command])
    return f"""
[program:{program.name}]
command={_escape(command)}
priority={program.order}
autorestart=true
startsecs=2
startretries=1000
stopsignal=TERM
stopwaitsecs={program.patience}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={_escape(stack.logs / program.name)}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""


def _escape(value: Path | str) -> str:
    """Write a value so that supervisord expands nothing in it."""
    return str(value).replace("%", "%%")


def digest(stack: Stack, environ: dict[str, str]) -> str:
    """Return what tells one set of programs and settings from another."""
    ours = {name: value for name, value in environ.items() if name.startswith(("AIRFLOW", "INSPECTLINE", "MLFLOW"))}
    return sha256(f"{configuration(stack)}{sorted(ours.items())}".encode()).hexdigest()


def start(stack: Stack, environ: dict[str, str]) -> None:
    """Write the configuration and start supervisord with it, in a session of its own.

    Raises:
        StackError: it did not come up.
    """
    write_atomically(stack.run / "supervisord.conf", configuration(stack), durable=True)
    write_atomically(stack.run / "digest", digest(stack, environ), durable=True)
    spawn(stack, environ)
    end = time.monotonic() + 20
    while not running(stack):
        if time.monotonic() > end:
            raise StackError(f"the supervisor does not start: see {stack.logs / 'supervisord.out'}")
        time.sleep(0.1)


def spawn(stack: Stack, environ: dict[str, str]) -> None:
    """Start supervisord as a process that outlives this one."""
    with (stack.logs / "supervisord.out").open("ab") as log:
        subprocess.Popen(  # noqa: S603 - our own supervisor
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(stack.run / "supervisord.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=stack.home,
            env=environ | {processes.MARK: processes.mark(stack.home, SUPERVISOR)},
            start_new_session=True,
        )


def connection(stack: Stack) -> Any:
    """Return supervisord's XML-RPC interface; its methods raise OSError where it does not run."""
    transport = SupervisorTransport(None, None, f"unix://{stack.socket}")
    return ServerProxy("http://localhost", transport=transport).supervisor


def running(stack: Stack) -> bool:
    """Tell whether the stack's supervisord answers."""
    try:
        return bool(connection(stack).getState()["statename"] == "RUNNING")
    except (OSError, Fault):
        return False


def states(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return what supervisord says of each program (`statename`, `pid`, `start`…); empty if it does not run."""
    try:
        return {info["name"]: info for info in connection(stack).getAllProcessInfo()}
    except (OSError, Fault):
        return {}


def start_program(stack: Stack, name: str) -> None:
    """Start one program that was given up or stopped by hand."""
    _unless_already(connection(stack).startProcess, name, False)


def restart_program(stack: Stack, name: str) -> None:
    """Stop one program, wait for its end, and start it again."""
    _unless_already(connection(stack).stopProcess, name, True)
    start_program(stack, name)


def _unless_already(act: Any, *arguments: Any) -> None:
    try:
        act(*arguments)
    except Fault as fault:
        if fault.faultCode not in _ALREADY:
            raise StackError(f"supervisord: {fault.faultString}") from None


def stop(stack: Stack, limit: float = 120.0) -> None:
    """Have supervisord stop every program in reverse order, then itself; then end whatever is left of the stack.

    Raises:
        StackError: something could not be ended.
    """
    try:
        connection(stack).shutdown()
    except (OSError, Fault):
        pass
    else:
        end = time.monotonic() + limit
        while processes.find(stack.home, SUPERVISOR) and time.monotonic() < end:
            time.sleep(0.2)
    try:
        processes.end(stack.home, SUPERVISOR)  # first, so that it starts nothing anew
        processes.end(stack.home, grace=5.0)
    except TimeoutError as error:
        raise StackError(str(error)) from None
    stack.socket.unlink(missing_ok=True)
