"""Runs a step as a process of its own that dies with the task that started it, and hands on its lines and
errors.

Training needs this: only the end of a process gives all memory of a GPU back, and a killed task must not leave
one behind that trains on beside its retry.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.errors import InspectlineError
from pipelines.storage.files import write_atomically

REFUSED = 65  # EX_DATAERR of sysexits.h: the step said why; the error is in the file of its result

# What TensorFlow prints of its own start, whatever its log level.
_NOISE = re.compile(r"WARNING: All log messages before absl|I0000 ")

# Runs in the child before anything else. prctl(PR_SET_PDEATHSIG = 1, SIGKILL) is Linux's; it misses a parent
# that died before the call, hence the second look. Elsewhere a thread watches. No preexec_fn: it is not safe
# with threads.
_BOOTSTRAP = """
import ctypes, os, runpy, signal, sys, threading, time
parent = int(sys.argv.pop(1))
def watch():
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
if sys.platform != "linux" or ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0):
    threading.Thread(target=watch, daemon=True).start()
if os.getppid() != parent:
    os._exit(1)
module = sys.argv.pop(1)
sys.argv[0] = module
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


class StepCrashed(InspectlineError):
    """A step's process ended without saying why in our own words; another try may go on from its checkpoint."""

    passing = True


def run_module(module: str, payload: dict[str, Any], log: Callable[[str], None], *words: str) -> dict[str, Any]:
    """Run `python -m module <words> <payload's values as JSON files> <result file>` and return the result it wrote.

    Every line that the process prints goes to `log` at once. The process is killed, with its children, if this
    call ends by an exception, and by the kernel if this process dies.

    Raises:
        InspectlineError: the very class and line that the step raised, or StepCrashed.
    """
    with tempfile.TemporaryDirectory(prefix="step-") as folder:
        arguments = []
        for name, value in payload.items():
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(value), encoding="utf-8")
            arguments.append(str(path))
        result = Path(folder) / "result.json"
        status, last_line = _follow([module, *words, *arguments, str(result)], log)
        answer = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None
    if status == 0 and isinstance(answer, dict):
        return answer
    if status == REFUSED and isinstance(answer, dict):
        raise _error_class(answer["error"])(answer["message"])
    raise StepCrashed(
        f"{' '.join([module, *words])} {_ending(status)}{f'; its last line: {last_line}' if last_line else ''}"
    )


def main(step: Callable[..., dict[str, Any]]) -> None:
    """Be the process that `run_module` starts: read the JSON files named by the arguments, run `step`, write
    its result.

    An InspectlineError becomes one line, a result file that names it, and exit status 65.
    """
    *inputs, result = (Path(argument) for argument in sys.argv[1:])
    try:
        value = step(*(json.loads(path.read_text(encoding="utf-8")) for path in inputs))
    except InspectlineError as error:
        _write(result, {"error": type(error).__name__, "message": str(error)})
        print(f"{type(error).__name__}: {error}", flush=True)
        raise SystemExit(REFUSED) from error
    _write(result, value)


def _follow(command: list[str], log: Callable[[str], None]) -> tuple[int, str]:
    """Run a module in a group of its own, log its lines, return its exit status and last line."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-c", _BOOTSTRAP, str(os.getpid()), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **quiet},
        start_new_session=True,
    )
    last_line = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            line = line.strip()
            if line and not _NOISE.match(line):
                last_line = line
                log(line)
        return process.wait(), last_line
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of the process's group, and reap the process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON that is whole or not there."""
    write_atomically(path, json.dumps(value))


def _ending(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"ended with status {status}" if status else "ended without a result"
    name = signal.Signals(-status).name
    hint = " (often: out of memory)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def _error_class(name: str) -> type[InspectlineError]:
    """Return the class of our errors that is called `name`."""
    waiting: list[type[InspectlineError]] = [InspectlineError]
    while waiting:
        candidate = waiting.pop()
        if candidate.__name__ == name:
            return candidate
        waiting.extend(candidate.__subclasses__())
    return InspectlineError
