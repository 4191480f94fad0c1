"""Elects one of several processes by an exclusive file lock, which the kernel releases when the process exits."""

from pathlib import Path

from filelock import FileLock, Timeout


class LeaderLock:
    """The lock on the file at `path`; the first process to acquire it leads.

    Any thread of the process may acquire and release it. A file system without `flock` raises instead of falling back
    to a lock that outlives its process.
    """

    def __init__(self, path: Path):
        self._lock = FileLock(path, mode=0o600, thread_local=False, blocking=False, fallback_to_soft=False)

    def acquire(self) -> bool:
        """Return whether this process leads; acquires the lock if it is free."""
        if self._lock.is_locked:
            return True
        try:
            self._lock.acquire()
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Release the lock, so that another process can lead."""
        self._lock.release()
