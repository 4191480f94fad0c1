"""Waits for a job, for the time that the client prefers and the settings allow, in a bounded number of threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Request

from pipelines.errors import CatalogueError
from serving import catalogue

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class Room:
    """A bounded number of places that never blocks: a semaphore with an immediate answer."""

    def __init__(self, places: int):
        self._places = threading.BoundedSemaphore(places) if places else None

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Hold a place while the block runs; yields False if there is none."""
        taken = self._places is not None and self._places.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken and self._places is not None:
                self._places.release()


def patience(request: Request, most: float) -> tuple[float, str | None]:
    """Return the seconds to wait, at most `most`, and the preference applied (`Prefer`, RFC 7240), if any.

    `respond-async` alone means no wait, `wait=N` up to N seconds; invalid preferences are ignored, as the RFC requires.
    """
    asked: dict[str, str] = {}
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        asked.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = asked.get("wait", "")
    if wait.isascii() and wait.isdigit() and len(wait) < 10:
        seconds = min(float(wait), most)
        return seconds, f"wait={int(seconds)}"
    return (0.0, "respond-async") if "respond-async" in asked else (most, None)


def wait_for(project: str, job: int, seconds: float, room: Room, ending: threading.Event) -> None:
    """Wait until the job has ended; return earlier on timeout, when serving ends, or if `room` is full."""
    if seconds <= 0:
        return
    end = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    with room.place() as seated:
        while seated and not ending.wait(max(0.0, min(pause, end - time.monotonic()))):
            try:
                if catalogue.is_ended(project, job) or time.monotonic() >= end:
                    return
            except CatalogueError:  # the job is stored; the client can poll it later
                return
            pause = min(_LONGEST_PAUSE, pause * 1.5)
