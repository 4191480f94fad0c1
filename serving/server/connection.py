"""An HTTP/1.1 connection of uvicorn with the limits that uvicorn leaves to a proxy: times, sizes, connections.

No thread waits for a client: all of this runs on the event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = float(os.environ.get("INSPECTLINE_REQUEST_SECONDS") or 30)
LAST_REQUEST_SECONDS = 5.0  # for a request that began to arrive before the server ends
MAX_CONNECTIONS = 1000
MAX_HEAD_BYTES = 64 << 10
_HOST = re.compile(rb"[\w.!$&'()*+,;=:%~\[\]-]*", re.ASCII)  # RFC 3986, section 3.2.2, with a port


@dataclass
class Arrival:
    """What the application may know of a request's arrival; in the scope's `state` under `arrival`.

    Attributes:
        seconds_left: seconds that the body may take to arrive, counted from the end of the head.
        expects_continue: whether the client asks before it sends the body (RFC 9110, section 10.1.1).
        complete: whether the whole request has arrived, even if nobody has asked for it.
    """

    seconds_left: float
    expects_continue: bool = False
    complete: bool = False


class Connection(HttpToolsProtocol):
    """Gives a request's head `REQUEST_SECONDS` to arrive, and the client as long to take its answer.

    A timeout for each read alone would not do: a client that sends a byte now and then would never meet it. Beyond
    `MAX_CONNECTIONS`, the connection whose request has been arriving for longest makes room for a new one.
    """

    _arriving: ClassVar[dict[Connection, None]] = {}  # in the order in which they began

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that `pause_writing` tells of every answer that is not taken
        self._arrival: Arrival | None = None
        self._in_head = False
        self._progress = False
        self._unused_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._expect_head(REQUEST_SECONDS)
        if len(self.connections) > MAX_CONNECTIONS:
            next(iter(self._arriving)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._head_arrived()
        self._arriving.pop(self, None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse a head, or what follows a body in chunks, that does not end within `MAX_HEAD_BYTES`."""
        self._progress = False
        super().data_received(data)
        self._unused_bytes = 0 if self._progress else self._unused_bytes + len(data)
        if self._unused_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's headers are too large.")

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has sent its whole request and closed its own direction."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering and self._arrival is not None and self._arrival.complete

    def pause_writing(self) -> None:
        """Close the connection unless the client takes its answer in time."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has taken all that was sent."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def shutdown(self) -> None:
        """End when the answer is sent; a request whose head is arriving has `LAST_REQUEST_SECONDS`."""
        if self._in_head:
            self._head_arrived()
            self._expect_head(LAST_REQUEST_SECONDS)
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """Give the next request its time."""
        super().on_message_begin()
        self._progress = self._in_head = True
        self._began = self.loop.time()
        if self._head_timer is None:
            self._expect_head(REQUEST_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Leave out the fields that follow a body in chunks: they are none of the head's (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, and close the connection; without a word if an answer has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps({"error": msg}).encode()
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def on_headers_complete(self) -> None:
        """Hand the request over to the application, while its body may still be arriving.

        Raises:
            _Ambiguous: the head could be read in two ways, which the parser allows; answered with 400.
        """
        if problem := _framing_problem(self.parser.get_http_version(), self.headers):
            raise _Ambiguous(problem)
        self._in_head, self._progress = False, True
        self._head_arrived()
        left = max(0.0, REQUEST_SECONDS - (self.loop.time() - self._began))
        self._arrival = Arrival(left, self.expect_100_continue)
        self.scope.setdefault("state", {})["arrival"] = self._arrival
        super().on_headers_complete()
        if self.parser.should_upgrade():  # the parser drops what comes with such a request, so no other may follow it
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the whole request has arrived."""
        self._progress = True
        if self._arrival is not None:
            self._arrival.complete = True
        self._arriving.pop(self, None)
        super().on_message_complete()

    def _expect_head(self, seconds: float) -> None:
        self._arriving[self] = None
        self._head_timer = self.loop.call_later(seconds, self._head_late)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # reading may be paused until it is answered
            self._expect_head(REQUEST_SECONDS)
        else:
            self.transport.close()


class _Ambiguous(ValueError):
    """A request whose end depends on who reads it."""


def _framing_problem(version: str, headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return why a head may be read differently by a proxy in front (RFC 9112, sections 2.3, 3.2 and 6.1), or None."""
    if version not in ("1.0", "1.1"):  # a request line without a version is also taken with a bare LF at its end
        return f"HTTP/{version} is not spoken here"
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return "not exactly one Host"
    if not all(_HOST.fullmatch(host) for host in hosts):
        return "no valid Host"
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (version == "1.0" or codings != [b"chunked"]):
        return "a Transfer-Encoding other than chunked, or in HTTP/1.0"
    return None


def arrival(scope: Any) -> Arrival:
    """Return the arrival of the request of an ASGI scope."""
    held: Arrival = scope["state"]["arrival"]
    return held
