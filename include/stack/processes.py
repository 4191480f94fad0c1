"""The stack's processes, found by the mark that each carries in its environment, whoever their parent is now.

A server killed with -9 leaves children behind that hold its port or go on with its work. They inherited the variable
`INSPECTLINE_SUPERVISED=<home>|<program>` and are found by it in /proc (Linux).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "INSPECTLINE_SUPERVISED"


@dataclass(frozen=True)
class Process:
    """A running process of a stack."""

    pid: int
    program: str


def mark(home: Path, program: str) -> str:
    """Return the value of `MARK` for a program of the stack at `home`."""
    return f"{home}|{program}"


def find(home: Path, program: str | None = None) -> list[Process]:
    """Return the processes of the stack at `home`, of one program or of all, without this one and its ancestors."""
    prefix = mark(home, "")
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    matches = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            value = process.environ().get(MARK, "")
        except (psutil.Error, OSError):  # exited meanwhile, or another user's
            continue
        name = value.removeprefix(prefix)
        if value.startswith(prefix) and program in (None, name):
            matches.append(Process(process.pid, name))
    return matches


def end(home: Path, program: str | None = None, *, grace: float = 0.0, limit: float = 20.0) -> list[Process]:
    """End the processes that `find` finds, and return them: SIGTERM first if they have `grace` seconds, then SIGKILL.

    Raises:
        TimeoutError: some were still there after `limit` seconds.
    """
    ended = {process.pid: process for process in find(home, program)}
    if grace:
        _signal(ended.values(), signal.SIGTERM)
        patience = time.monotonic() + grace
        while find(home, program) and time.monotonic() < patience:
            time.sleep(0.1)
    deadline = time.monotonic() + limit
    while left := find(home, program):  # again, since one that dies may just have started another
        ended |= {process.pid: process for process in left}
        _signal(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"cannot end process {left[0].pid} ({left[0].program}) of {home}")
        time.sleep(0.05)
    return list(ended.values())


def memory(pids: Iterable[int]) -> int:
    """Return the memory of these processes in bytes, what they share counted once (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):  # exited meanwhile, or another user's
            total += psutil.Process(pid).memory_full_info().pss
    return total


def _signal(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue
