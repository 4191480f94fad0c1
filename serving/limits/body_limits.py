"""Bounds the memory that requests take: as many large bodies at a time as there is room for; others come again."""

import threading

from flask import Flask, g, request

from serving.refusals import unavailable

_SMALL = 128 << 10  # bytes; what is no larger counts for nothing


class ByteRoom:
    """Room for `most` bytes. A body larger than the whole room is taken alone."""

    def __init__(self, most: int):
        self._most, self._taken = most, 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take room for `size` bytes, or tell that there is none now."""
        with self._lock:
            if self._taken and self._taken + size > self._most:
                return False
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken -= size


def bound(app: Flask, room: ByteRoom, largest: int) -> None:
    """Have each request take room before its body is read; `largest` for a body whose length is not told.

    To be called after `guard`: whoever may not make the call takes no room.
    """

    def take() -> None:
        told = request.content_length
        size = min(told, largest) if told is not None else largest if "Transfer-Encoding" in request.headers else 0
        if size <= _SMALL or request.endpoint is None:
            return
        if not room.take(size):
            raise unavailable("many large images are being received at the moment; try again")
        g.received = size

    def give_back(_: BaseException | None) -> None:
        if size := g.pop("received", 0):
            room.give_back(size)

    app.before_request(take)
    app.teardown_request(give_back)
