"""Gunicorn's threaded worker, except that neither idle nor slow clients hold up what matters, and that a refused image
costs nobody the connection.
"""

import contextlib
import os
import select
import socket
import time
from typing import Any

from gunicorn.workers.gthread import _DEFER, DEFAULT_WORKER_DATA_TIMEOUT, TConn, ThreadWorker

from serving.refusals import Refusal

REQUEST_SECONDS = float(os.environ.get("INSPECTLINE_REQUEST_SECONDS") or 30)
_GLANCE_SECONDS = 0.2
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 64 << 20
_CHUNK = 1 << 16
_STAY_MILLISECONDS = 10


class PatientSocket:
    """What gunicorn reads a request from: it gives each request, its body included, `REQUEST_SECONDS` to arrive.

    A timeout for each read alone would not do: a client that sends a byte now and then would never meet it.
    """

    def __init__(self, connected: socket.socket):
        self._connected = connected
        self._until = 0.0

    def begin(self) -> None:
        """Give the next request its time."""
        self._until = time.monotonic() + REQUEST_SECONDS

    def gettimeout(self) -> None:
        """Return no timeout: a request has a time as a whole."""

    def settimeout(self, seconds: float | None) -> None:
        """Leave no more than `seconds`; what is left of a request that was refused has less time than others."""
        if seconds is not None:
            self._until = min(self._until, time.monotonic() + seconds)

    def recv(self, size: int) -> bytes:
        """Return what has come, as a socket does.

        Raises:
            Refusal: 408, time is up.
        """
        left = self._until - time.monotonic()
        if left > 0:
            self._connected.settimeout(left)
            with contextlib.suppress(TimeoutError):
                return self._connected.recv(size)
        # What is answered, too, has to be taken within a time.
        self._connected.settimeout(REQUEST_SECONDS)
        raise Refusal(408, f"the request was not here within {REQUEST_SECONDS:g} s: send it faster, or less at a time")


class Worker(ThreadWorker):
    """Ends as soon as the last request is answered, and gives a request a time to arrive in.

    Gunicorn 26 waits for idle keep-alive connections until `graceful_timeout`, longer than Docker lets it, and for a
    request's body for ever.
    """

    def handle(self, conn: TConn) -> Any:
        """Read, answer, and tell whether the connection stays."""
        if not conn.initialized:
            if not conn.wait_for_data(DEFAULT_WORKER_DATA_TIMEOUT):
                return _DEFER
            conn.init()
            conn.parser.unreader.sock = PatientSocket(conn.sock)
            conn.parser.unreader.mxchunk = _CHUNK
        while True:
            conn.parser.unreader.sock.begin()
            vars(conn).pop("close", None)  # see _keepalive_after
            try:
                stays = super().handle(conn)
            except Refusal:  # nothing to answer: it was no request yet, or the answer is on its way
                return False
            if stays is not True or not self._goes_on(conn):
                return stays

    def _goes_on(self, conn: TConn) -> bool:
        """Tell whether the client's next request comes at once, while nobody else waits for this thread.

        The way through the poller costs the processor a third as much as all the rest of HTTP.
        """
        if conn.parser.unreader.buf.getbuffer().nbytes:  # here already, read with the end of the one before
            return self.alive
        if not self.alive or not self.tpool._work_queue.empty():
            return False
        ready = select.poll()
        ready.register(conn.sock, select.POLLIN)
        return bool(ready.poll(_STAY_MILLISECONDS)) and self.alive

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no request; one that did not come in time is no error."""
        if isinstance(exc, Refusal):
            self.log.debug("Closing connection. %s", exc)
            return
        super().handle_error(req, client, addr, exc)

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

        Gunicorn 26 gives up after 64 kB and closes a connection that the answer has just called alive. Before it closes
        one, its main thread waits up to two seconds for the client to do so first, which holds up all others; only
        where something was left unread is there a reason to.
        """
        deadline = time.monotonic() + _DRAIN_SECONDS
        whole = bool(conn.parser.finish_body(deadline=deadline, max_bytes=_DRAIN_BYTES))
        if whole:
            conn.close = lambda graceful=False: TConn.close(conn)
        return keepalive and whole
