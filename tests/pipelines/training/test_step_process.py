"""A step in a process of its own: its result, its lines, its errors, and that it never outlives its parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipelines.config.settings import REPOSITORY
from pipelines.errors import ExportMismatch, StorageError
from pipelines.training.step_process import StepCrashed, run_module


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module `sample_step` whose body of `step(first, second)` is given, and return its name."""

    def write(body: str) -> str:
        source = "import os, signal, subprocess, sys, time\nfrom pipelines.errors import *\n"
        source += "from pipelines.training.step_process import main\ndef step(first, second):\n"
        source += textwrap.indent(textwrap.dedent(body), "    ") + "\nif __name__ == '__main__':\n    main(step)\n"
        (tmp_path / "sample_step.py").write_text(source)
        return "sample_step"

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return write


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_run_module_when_the_step_returns_gives_its_result_and_every_line(step):
    lines: list[str] = []
    name = step("print('one'); print('two', file=sys.stderr); return {'sum': first['n'] + second['n']}")
    assert run_module(name, {"first": {"n": 2}, "second": {"n": 3}}, lines.append) == {"sum": 5}
    assert sorted(lines) == ["one", "two"]


def test_run_module_while_the_step_runs_logs_lines_at_once(step):
    seen: list[float] = []
    name = step("print('early'); time.sleep(1); return {}")
    run_module(name, {"first": {}, "second": {}}, lambda line: seen.append(time.monotonic()))
    assert time.monotonic() - seen[0] > 0.8


@pytest.mark.parametrize(("raised", "passing"), [(ExportMismatch, False), (StorageError, True)])
def test_run_module_when_the_step_refuses_raises_the_same_class_and_line(step, raised, passing):
    name = step(f"raise {raised.__name__}('weights differ by 3; export again')")
    with pytest.raises(raised, match="^weights differ by 3; export again$") as caught:
        run_module(name, {"first": {}, "second": {}}, print)
    assert caught.value.passing is passing


def test_run_module_when_the_step_crashes_says_its_last_line_and_may_be_tried_again(step):
    with pytest.raises(StepCrashed, match=r"ended with status 1; its last line: ValueError: no such layer") as caught:
        run_module(step("raise ValueError('no such layer')"), {"first": {}, "second": {}}, print)
    assert caught.value.passing


def test_run_module_when_the_step_is_killed_says_by_what(step):
    with pytest.raises(StepCrashed, match=r"was ended by SIGKILL .*memory.*last line: working"):
        run_module(step("print('working'); os.kill(os.getpid(), signal.SIGKILL)"), {"first": {}, "second": {}}, print)


def test_run_module_when_the_log_raises_ends_the_process_and_its_children(step):
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.extend(int(part) for part in line.split())
        raise KeyboardInterrupt

    name = step(
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\nprint(os.getpid(), child.pid)\n"
        "time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt):
        run_module(name, {"first": {}, "second": {}}, stop)
    assert len(pids) == 2
    assert wait_for(lambda: not any(is_alive(pid) for pid in pids), 5)


def test_run_module_when_its_process_is_killed_the_step_dies_too(step):
    name = step("print('pid', os.getpid())\ntime.sleep(60)")
    code = (
        f"from pipelines.training.step_process import run_module; run_module({name!r}, {{'a': {{}}, 'b': {{}}}}, print)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline().split()[1])
    assert is_alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not is_alive(child), 5)
