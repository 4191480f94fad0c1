"""Waiting for a job, as long as the client likes, the settings allow, and predictions keep their threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Request

from pipelines.errors import CatalogueError
from serving import catalogue

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class Room:
    """A bounded number of places; who finds none is told at once."""

    def __init__(self, places: int):
        self._places = threading.BoundedSemaphore(places) if places else None

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Give a place for as long as the block runs, or tell that there is none."""
        taken = self._places is not None and self._places.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken and self._places is not None:
                self._places.release()


def patience(request: Request, most: float) -> tuple[float, str | None]:
    """Return for how many seconds the client waits, at most `most`, and what of its `Prefer` is kept to (RFC 7240).

    `respond-async` alone means not at all, `wait=N` up to N seconds; what cannot be read is left out, as the RFC says.
    """
    asked: dict[str, str] = {}
    for one in ",".join(request.headers.getlist("Prefer")).split(","):
        name, _, value = one.partition(";")[0].partition("=")
        asked.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = asked.get("wait", "")
    if wait.isascii() and wait.isdigit() and len(wait) < 10:
        seconds = min(float(wait), most)
        return seconds, f"wait={int(seconds)}"
    return (0.0, "respond-async") if "respond-async" in asked else (most, None)


def wait_for(project: str, job: int, seconds: float, room: Room, ending: threading.Event) -> None:
    """Return when the job has ended, the time is over, serving ends, or there is no place to wait in."""
    if seconds <= 0:
        return
    end = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    with room.place() as seated:
        while seated and not ending.wait(max(0.0, min(pause, end - time.monotonic()))):
            try:
                if catalogue.is_ended(project, job) or time.monotonic() >= end:
                    return
            except CatalogueError:  # what was asked for is safe; the client asks for the job later
                return
            pause = min(_LONGEST_PAUSE, pause * 1.5)
