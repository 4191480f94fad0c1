import os
import subprocess
import sys
import time

import pytest

from include.stack import processes
from tests.conftest import wait_until

# A server whose child goes its own way: a session of its own, and a title written over its arguments.
SERVER = """
import os, subprocess, sys, time
from setproctitle import setproctitle
setproctitle("a title as long as those that the servers of the stack give themselves -- host:127.0.0.1 port:8080")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(tmp_path):
    """Start a marked server with a child, and yield it with its child's process id."""
    environ = os.environ | {processes.MARK: processes.mark(tmp_path, "server"), "SPT_NOENV": "1"}
    started = subprocess.Popen([sys.executable, "-c", SERVER], env=environ, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    child = int(started.stdout.readline())
    yield started, child
    processes.end(tmp_path)
    started.wait(timeout=10)
    started.stdout.close()


def pids(home, program=None):
    return {process.pid for process in processes.find(home, program)}


def test_processes_when_marked_are_found_with_their_children(tmp_path, server):
    started, child = server

    assert pids(tmp_path) == {started.pid, child}
    assert pids(tmp_path, "server") == {started.pid, child}


def test_processes_when_of_another_program_or_stack_are_not_found(tmp_path, server):
    assert pids(tmp_path, "other") == set()
    assert pids(tmp_path / "other") == set()
    assert pids(tmp_path.parent) == set()


def test_child_when_its_parent_was_killed_is_found_and_ended(tmp_path, server):
    started, child = server
    started.kill()
    started.wait()
    assert pids(tmp_path) == {child}

    ended = processes.end(tmp_path, "server")

    assert [process.pid for process in ended] == [child]
    assert pids(tmp_path) == set()


def test_process_when_given_grace_ends_by_itself(tmp_path):
    script = (
        "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint(1, flush=True)\ntime.sleep(600)"
    )
    environ = os.environ | {processes.MARK: processes.mark(tmp_path, "polite")}
    started = subprocess.Popen([sys.executable, "-c", script], env=environ, stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.readline()

    processes.end(tmp_path, grace=10)

    assert started.wait(timeout=10) == 7
    started.stdout.close()


def test_process_when_it_ends_others_spares_itself_and_its_ancestors(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom include.stack import processes\n"
        "print(len(processes.end(Path(sys.argv[1]))))"
    )
    environ = os.environ | {processes.MARK: processes.mark(tmp_path, "self")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "0"


def test_memory_when_measured_counts_what_a_process_holds(tmp_path, server):
    started, child = server

    assert 2 << 20 < processes.memory([started.pid]) < 200 << 20
    assert processes.memory([started.pid, child]) > processes.memory([child]) > 0
    assert processes.memory([2**22 + 1]) == 0


def test_launcher_when_something_was_left_behind_ends_it_and_becomes_the_program(tmp_path, server):
    started, child = server
    started.kill()
    started.wait()
    launched = subprocess.Popen(
        [sys.executable, "-m", "include.stack.launch", str(tmp_path), "server", "--"]
        + [sys.executable, "-c", "import os, time; print('here', os.getpid(), flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launched.stdout is not None

    assert launched.stdout.readline().startswith(f"ended process {child}, left behind by the last server")
    assert launched.stdout.readline().split() == ["here", str(launched.pid)]
    assert pids(tmp_path) == {launched.pid}
    launched.kill()
    launched.wait()
    launched.stdout.close()


def test_launcher_when_told_to_wait_starts_once_the_port_answers(tmp_path):
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        flag = tmp_path / "started"
        launched = subprocess.Popen(
            [sys.executable, "-m", "include.stack.launch", str(tmp_path), "later", "--after", str(port), "--"]
            + ["touch", str(flag)]
        )
        time.sleep(1.5)
        assert not flag.exists()
        listener.listen()
        wait_until(flag.exists, 20, "the launched program")
    assert launched.wait(timeout=10) == 0
