"""Gunicorn's threaded worker, except that neither idle nor slow clients hold up what matters, and that a refused image
costs nobody the connection, nor the answer.
"""

import contextlib
import io
import math
import os
import select
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http.body import Body
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from serving.refusals import Refusal

REQUEST_SECONDS = float(os.environ.get("INSPECTLINE_REQUEST_SECONDS") or 30)
_GLANCE_SECONDS = 0.2
_DRAIN_SECONDS = 1.0
_LINGER_SECONDS = 0.5
# When the end has come: for a client that was told it may send another request, for that request to arrive and for a
# refused client to read its answer, and for all uploads under way; less than `graceful_timeout`.
_LAST_SECONDS = 1.0
_LAST_REQUEST_SECONDS = 5.0
_END_SECONDS = 20.0
_DRAIN_BYTES = 64 << 20
_CHUNK = 1 << 16
_STAY_MILLISECONDS = 10


class Log(Logger):
    """Gunicorn's log without its line for each request: the app writes one that says more (`serving.app`)."""

    def access(self, *_: Any) -> None:
        """Write nothing."""


class PatientSocket:
    """What gunicorn reads a request from: it gives each request, its body included, `REQUEST_SECONDS` to arrive.

    A timeout for each read alone would not do: a client that sends a byte now and then would never meet it.
    """

    def __init__(self, connected: socket.socket, latest: Callable[[float], float]):
        """`latest` is `Worker.latest`."""
        self._connected, self._latest = connected, latest
        self.until = 0.0
        # Whether the client holds its body back until it is asked for it, which the next read does.
        self.waits = False
        self._soon = math.inf

    def begin(self) -> None:
        """Give the next request its time."""
        ending = self._latest(0) < math.inf
        self.until = time.monotonic() + (_LAST_REQUEST_SECONDS if ending else REQUEST_SECONDS)
        self.waits = False

    def gettimeout(self) -> None:
        """Return no timeout: a request has a time as a whole."""

    def settimeout(self, seconds: float | None) -> None:
        """Have the next reads end within `seconds`, in a TimeoutError; with None, the request's time alone counts."""
        self._soon = math.inf if seconds is None else time.monotonic() + seconds

    def recv(self, size: int) -> bytes:
        """Return what has come, as a socket does.

        Raises:
            TimeoutError: what `settimeout` allowed is over.
            Refusal: 408, the request's time is up.
        """
        if self.waits:
            if self._soon < math.inf:  # only what is left is looked for, and nobody has asked for that
                raise TimeoutError
            self.begin()  # until now the client has waited for us
            self._connected.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while (left := min(self.until, self._soon, self._latest(_END_SECONDS)) - time.monotonic()) > 0:
            self._connected.settimeout(min(left, _GLANCE_SECONDS))  # the end may come meanwhile
            try:
                return self._connected.recv(size)
            except TimeoutError:
                pass
            finally:  # what is answered, too, has to be taken within a time
                self._connected.settimeout(REQUEST_SECONDS)
        if self._soon <= time.monotonic():
            raise TimeoutError
        if self._latest(0) < math.inf:
            raise Refusal(408, "the server ends, and the request was not here in time: send it again")
        raise Refusal(408, f"the request was not here within {REQUEST_SECONDS:g} s: send it faster, or less at a time")


class LargePieces(Body):
    """A request's body, taken from what has come in pieces as large as the app asks for, up to `_CHUNK`.

    Gunicorn 26 takes 1,024 bytes at a time, and copies all that has come with each of them: an image of 2 MB costs it
    4 ms more. Whoever asks for a few bytes at a time pays for that.
    """

    buf: io.BytesIO
    broken = False  # cut off, or in broken chunks: gunicorn's reader, asked again, would call it complete

    def read(self, size: int | None = None) -> bytes:
        """Return `size` bytes, or all; fewer only at the body's end."""
        wanted = self.getsize(size)
        pieces = [self.buf.getvalue()]
        held = len(pieces[0])
        try:
            while held < wanted and (piece := self.reader.read(min(wanted - held, _CHUNK))):
                pieces.append(piece)
                held += len(piece)
        except Exception:
            self.broken = True
            raise
        data = b"".join(pieces)
        self.buf = io.BytesIO()
        self.buf.write(data[wanted:])
        return data[:wanted]


class Remainder:
    """What the app left unread of a request: read before the answer says whether the connection stays.

    Gunicorn 26 reads it afterwards. Then the client's next request may come with it, and would lie unseen until the
    connection is closed; and when it gives up, it closes a connection that the answer has just called alive.
    """

    def __init__(self, parser: Any, body: LargePieces, closes: Callable[[], bool]):
        self._parser, self._body, self._closes = parser, body, closes
        self._read: bool | None = None
        self._said: bool | None = None

    def should_close(self) -> bool:
        """Tell whether the answer ends the connection.

        Gunicorn asks this of a request when it writes the headers, and again before it reads the connection's next
        request: what the client was told then, holds.
        """
        if self._said is None:
            self._said = self._closes() or not self.read
        return self._said

    @property
    def read(self) -> bool:
        """Whether all has come; it is given a second for that, when this is asked first."""
        if self._read is None:
            try:
                within = time.monotonic() + _DRAIN_SECONDS
                read = self._parser.finish_body(deadline=within, max_bytes=_DRAIN_BYTES)
                self._read = bool(read) and not self._body.broken
            except Exception:  # cut off, in broken chunks, or not in time: nothing after it can be understood
                self._read = False
        return self._read


class Worker(ThreadWorker):
    """Ends as soon as the last request is answered, and gives a request a time to arrive in.

    Gunicorn 26 waits for idle keep-alive connections until `graceful_timeout` and for those that have sent nothing
    until the keep-alive's time is over, both longer than Docker lets it, and for a request's body for ever.
    """

    alive: bool
    sockets: list[Any]
    _ends: float | None = None  # when the end was first seen

    def handle(self, conn: TConn) -> Any:
        """Read, answer, and tell whether the connection stays."""
        if not conn.initialized:
            # Gunicorn's five seconds would let a few silent clients take all threads.
            if not conn.wait_for_data(_GLANCE_SECONDS if self.alive else 0):
                return _DEFER
            conn.init()
            conn.parser.unreader.sock = PatientSocket(conn.sock, self.latest)
            conn.parser.unreader.mxchunk = _CHUNK
        while True:
            conn.parser.unreader.sock.begin()
            try:
                stays = super().handle(conn)
            except Refusal:  # nothing to answer: it was no request yet, or the answer is on its way
                stays = False
            if stays is False:
                self._linger(conn)
            if stays is not True or not self._goes_on(conn):
                return stays

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Have the app answer, and tell whether the connection stays.

        A client that asks before it sends its body (RFC 9110, section 10.1.1) is told to go on when the app reads it,
        so whom the app refuses keeps it, and who is told to go on has room. Gunicorn 26 tells all before it asks the
        app.
        """
        conn.sock.settimeout(REQUEST_SECONDS)  # for the answer, even if nothing more has to be read
        conn.parser.unreader.sock.waits, req._expected_100_continue = req._expected_100_continue, False
        req.body = LargePieces(req.body.reader)
        closes = req.should_close
        conn.remainder = Remainder(conn.parser, req.body, lambda: not self.alive or closes())
        req.should_close = conn.remainder.should_close
        return super().handle_request(req, conn)

    def _linger(self, conn: TConn) -> None:
        """Take what still comes, until the client has read the answer and closes (RFC 9112, section 9.6).

        Closed with bytes unread, the connection would be reset, and the answer lost on its way. Gunicorn 26 does this
        in the thread that all connections need, where each silent client stops them all for two seconds.
        """
        remainder = getattr(conn, "remainder", None)
        unread = remainder is not None and not remainder.read
        patient = conn.parser.unreader.sock if unread else None
        sends = patient is not None and not patient.waits
        # If nothing is to come, others may have the thread.
        until = time.monotonic() + (_LINGER_SECONDS if unread or self.tpool._work_queue.empty() else 0)
        taken = 0
        with contextlib.suppress(OSError):  # it is gone
            conn.sock.shutdown(socket.SHUT_WR)
            while taken < _DRAIN_BYTES:
                whole = min(patient.until, self.latest(_LAST_REQUEST_SECONDS)) if patient and sends else 0
                left = max(until, whole) - time.monotonic()
                if left <= 0:
                    break
                conn.sock.settimeout(min(left, _GLANCE_SECONDS))  # the end may come meanwhile
                try:
                    chunk = conn.sock.recv(_CHUNK)
                except TimeoutError:
                    continue
                if not chunk:
                    break
                taken += len(chunk)
                sends = unread  # whoever did not wait to be asked will send all of it
        with contextlib.suppress(OSError):
            conn.sock.shutdown(socket.SHUT_RDWR)  # gunicorn's own wait ends at once

    def _goes_on(self, conn: TConn) -> bool:
        """Tell whether the client's next request is here, or comes at once while nobody else waits for this thread.

        The way through the poller costs the processor a third as much as all the rest of HTTP.
        """
        if conn.parser.unreader.buf.getbuffer().nbytes:  # it came with the one before: the poller would not see it
            return True
        if not self.alive or not self.tpool._work_queue.empty():
            return False
        return _readable(conn.sock, _STAY_MILLISECONDS)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no request; one that did not come in time is no error."""
        if isinstance(exc, Refusal):
            self.log.debug("Closing connection. %s", exc)
            return
        super().handle_error(req, client, addr, exc)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Take new connections or not; when ending, take those that already stand in line, and then refuse all others.

        Gunicorn 26 resets them at the end: a client sees its request, already sent, fail.
        """
        if enabled and not self.alive:  # told to end before it began
            return
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                before = -1
                while before < self.nr_conns < self.worker_connections:
                    before = self.nr_conns
                    self.accept(listener)
                listener.close()
            self.sockets = []

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Take what has come in, and look again soon while ending."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, _GLANCE_SECONDS))

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """End; whoever waits for a job is told its address now."""
        if app := getattr(self, "wsgi", None):
            app.extensions["inspectline"].ending.set()
        super().handle_exit(sig, frame)

    def is_parent_alive(self) -> bool:
        """Tell whether there is a server still; without one, end."""
        if not super().is_parent_alive():
            self.alive = False
        return self.alive

    def latest(self, seconds: float) -> float:
        """Return by when (`time.monotonic`) something has to be over that has so many `seconds` from the worker's end;
        infinity before the end.
        """
        if self.alive:
            return math.inf
        if self._ends is None:
            self._ends = time.monotonic()
        return self._ends + seconds

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Keep a connection, while ending as well, where it may bring one more request; or close it.

        Gunicorn 26 closes it then, and loses a request on its way. And it waits up to two seconds for each client to
        close, one after the other, in the thread that all connections need: eight that were answered just before the
        end hold it up for 16 s.
        """
        told = not fs.cancelled() and fs.exception() is None and fs.result()
        if conn.sock.fileno() < 0:  # closed by gunicorn, in the middle of an answer; it would count it twice
            self.nr_conns -= 1
        elif not told:
            super().finish_request(conn, fs)
        else:
            waiting, then = (
                (self.pending_conns, self.on_pending_socket_readable)
                if told is _DEFER
                else (self.keepalived_conns, self.on_client_socket_readable)
            )
            conn.sock.setblocking(False)
            conn.set_timeout()
            waiting.append(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(then, conn))

    def murder_keepalived(self) -> None:
        """Close idle connections that are over time; while ending, all that send nothing soon."""
        if self.alive:
            super().murder_keepalived()
        else:
            self._close_idle(self.keepalived_conns)

    def murder_pending(self) -> None:
        """Close connections that have sent nothing and are over time; while ending, all that send nothing soon."""
        if self.alive:
            super().murder_pending()
        else:
            self._close_idle(self.pending_conns)

    def _close_idle(self, connections: deque[TConn]) -> None:
        """Give each `_LAST_SECONDS`, and look once more before it is closed: to close many takes time."""
        for conn in list(connections):
            conn.timeout = min(conn.timeout, time.monotonic() + _LAST_SECONDS)
            if conn.timeout > time.monotonic() or _readable(conn.sock, 0):
                continue
            connections.remove(conn)
            self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Tell what the answer said."""
        return keepalive and bool(conn.remainder.read)


def _readable(connected: socket.socket, milliseconds: float) -> bool:
    """Tell whether something has come, or comes within some time."""
    ready = select.poll()
    ready.register(connected, select.POLLIN)
    return bool(ready.poll(milliseconds))
