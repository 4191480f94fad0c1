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


def refuse_encoded(app: Flask) -> None:
    """Have the app refuse a request with a Content-Encoding: it is not undone, and could be a decompression bomb.

    To be called after `guard`, as `refuse_when_told`.
    """

    def check() -> None:
        if request.routing_exception is not None:
            return
        given = ",".join(request.headers.getlist("Content-Encoding"))
        if any(coding.strip().lower() not in ("", "identity") for coding in given.split(",")):
            why = f"the request has Content-Encoding {given.strip()[:64]!r}: send it as it is, without"
            raise Refusal(415, why, headers={"Accept-Encoding": "identity"})

    app.before_request(check)


def refuse_when_told(app: Flask) -> None:
    """Have the app refuse a request whose environment holds a reason: what the server found while the body arrived.

    To be called after `guard`: whoever may not make the call is told that first.
    """

    def check() -> None:
        refusal: Refusal | None = request.environ.get(REFUSAL)
        if refusal is not None:
            raise refusal

    app.before_request(check)
