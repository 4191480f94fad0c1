"""Bounds the memory that requests take: as many large bodies at a time as there is room for; others come again."""

import threading

from flask import Flask, request

from serving.refusals import Refusal

REFUSAL = "inspectline.refusal"


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


def refuse_when_told(app: Flask) -> None:
    """Have the app refuse a request whose environment holds a reason: what the server found while the body arrived.

    To be called after `guard`: whoever may not make the call is told that first.
    """

    def check() -> None:
        refusal: Refusal | None = request.environ.get(REFUSAL)
        if refusal is not None:
            raise refusal

    app.before_request(check)
