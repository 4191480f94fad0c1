"""Several workers: one polls, the others follow it, and one of them takes over when it dies."""

import os
import signal
from pathlib import Path

import requests

from tests.conftest import wait_until
from tests.serving.conftest import Registry, Server


def holder(lock: Path) -> int:
    """Return the process that holds the lock on a file, or 0."""
    inode = f":{lock.stat().st_ino} "
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        if inode in line and "FLOCK" in line:
            return int(line.split()[4])
    return 0


def versions(server: Server, asked: int = 12) -> set[str | None]:
    """Return the versions that the workers say they serve; each question goes over a connection of its own."""
    return {requests.get(f"{server.address}/status", timeout=10).json()["version"] for _ in range(asked)}


def test_workers_when_the_one_that_polls_is_killed_then_another_takes_over(
    server: Server, registry: Registry, cache: Path
):
    first = registry.register()
    server.start(INSPECTLINE_WORKERS="2").until_version(first)
    lock = cache / "journal" / "poll.lock"
    wait_until(lambda: versions(server) == {first}, 20, "the first version in both workers")
    leader = holder(lock)
    assert leader
    os.kill(leader, signal.SIGKILL)
    second = registry.register()
    wait_until(lambda: versions(server) == {second}, 40, "the second version in both workers")
    assert holder(lock) not in (0, leader)
