"""Gunicorn's threaded worker, except that an idle camera does not hold up its end, nor a refused image the next one."""

import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

_GLANCE_SECONDS = 0.2
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 64 << 20


class Worker(ThreadWorker):
    """Ends as soon as the last request is answered.

    Gunicorn 26 waits for idle keep-alive connections until `graceful_timeout`, longer than Docker lets it.
    """

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Take what has come in, and look again soon while ending."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, _GLANCE_SECONDS))

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """End; whoever waits for a job is told its address now."""
        if app := getattr(self, "wsgi", None):
            app.extensions["inspectline"].ending.set()
        super().handle_exit(sig, frame)

    def murder_keepalived(self) -> None:
        """Close idle connections that are over time; while ending, all of them."""
        if not self.alive:
            for connection in self.keepalived_conns:
                connection.timeout = 0
        super().murder_keepalived()

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Read what is left of an image that was refused unread, and tell whether the connection can be used again.

        Gunicorn 26 gives up after 64 kB and closes a connection that the answer has just called alive.
        """
        deadline = time.monotonic() + _DRAIN_SECONDS
        return keepalive and bool(conn.parser.finish_body(deadline=deadline, max_bytes=_DRAIN_BYTES))
