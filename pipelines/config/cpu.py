"""Determine the usable processor cores, and limit numpy's threads."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota_file: Path = _QUOTA) -> int:
    """Return the number of processor cores available to this process by affinity and container quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


class _SingleThread:
    """A reentrant, shared limit of BLAS to one thread, for as long as at least one holder has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limit = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the limit; it is lifted when the last holder leaves."""
        from threadpoolctl import threadpool_limits

        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._limit.enter_context(threadpool_limits(1, user_api="blas"))
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._limit.close()


single_threaded_products = _SingleThread()
