"""Lets one argon2 run at a time use its 64 MiB, and bounds the threads that wait for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from serving.refusals import unavailable

TURN_SECONDS = 10.0


class HashingTurn:
    """A lock that prefers those who are probably right, and lets `waiting` others wait for up to `seconds`."""

    def __init__(self, waiting: int, seconds: float = TURN_SECONDS):
        self._most, self._seconds = waiting, seconds
        self._changed = threading.Condition()
        self._running = False
        self._preferred = self._others = 0

    @contextmanager
    def take(self, *, preferred: bool = False) -> Iterator[None]:
        """Wait for a turn, and hold it while the block runs; the `preferred` go first.

        Raises:
            Refusal: 503, too many wait, or the turn does not come in time.
        """
        with self._changed:
            if not self._wait(preferred):
                raise unavailable("too many log in at once; try again")
            self._running = True
        try:
            yield
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _wait(self, preferred: bool) -> bool:
        if preferred:
            self._preferred += 1
            try:
                return self._changed.wait_for(lambda: not self._running, self._seconds)
            finally:
                self._preferred -= 1
                self._changed.notify_all()  # after a timeout the others need not wait for this one
        if self._others >= self._most:
            return False
        self._others += 1
        try:
            return self._changed.wait_for(lambda: not self._running and not self._preferred, self._seconds)
        finally:
            self._others -= 1
