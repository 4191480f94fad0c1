"""The application that uvicorn runs: it collects a request's body on the event loop, then has Flask answer in a thread.

So a client that sends slowly, or nothing more, costs neither a thread nor others their turn. A body of more than
`SMALL_BODY` bytes, of unknown length, or that the client holds back until it is asked for (`Expect: 100-continue`), is
collected only if it is wanted: Flask is called without it first, and that call is given up where the view begins to
read, after login, role, address and headers have been checked. Whoever is refused before has nothing collected. What
is collected is bounded by `INSPECTLINE_RECEIVE_MB` in all.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import io
import logging
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.cpu import usable_cores
from serving.limits.body_limits import REFUSAL, ByteRoom
from serving.refusals import DELAY, Refusal, unavailable
from serving.server.connection import LAST_REQUEST_SECONDS, REQUEST_SECONDS, Arrival, arrival
from serving.server.wsgi import AbsentBody, Answer, BodyRequired, Caller, Environ, environ

if TYPE_CHECKING:
    from flask import Flask

    from serving.service import Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SMALL_BODY = 64 << 10  # bytes; what is no larger is collected at once, and counts for nothing
_DRAIN_SECONDS = 1.0  # for the rest of a refused body, so that the connection can stay
_MOST_DELAYED = 500  # answers, half of the connections that a process keeps
_LINGER_SECONDS = 0.5  # for a client that was too late to read why
# After the signal to end: how long new requests are still taken, and how long uploads may go on.
_LAST_SECONDS = 1.0
_END_SECONDS = 20.0

# The event loop takes its turn among the threads after every system call; by default, it can wait 5 ms each time.
_SWITCH_SECONDS = 0.0005

_log = logging.getLogger(__name__)


class Gateway:
    """Answers each request of the ASGI server with a Flask app that holds its `Service` in its extensions."""

    def __init__(self, app: Flask, threads: int):
        self._service: Service = app.extensions["inspectline"]
        self._call = Caller(app.wsgi_app, threads)
        # Whoever announces a large body, and sends it or not, is not to keep those waiting whose request is here.
        self._ask = Caller(app.wsgi_app, max(1, threads // 16))
        self._largest = int(app.config["MAX_CONTENT_LENGTH"])
        self._room = ByteRoom(self._service.config.receive_bytes)
        self._ending = False
        self._delayed = 0
        self._timeouts: dict[asyncio.Timeout, float] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or start and end with the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._answer(scope, _Body(scope, receive), send)

    async def _answer(self, scope: Message, body: _Body, send: Send) -> None:
        if body.expects_continue or not body.small:
            try:
                await self._send(await self._called(self._ask, environ(scope, AbsentBody())), body, send)
                return
            except BodyRequired:
                pass
        taken = 0 if body.small else min(body.length or self._largest, self._largest)
        if taken and not self._room.take(taken):
            busy = unavailable("many large images are being received at the moment; try again")
            await self._send(await self._called(self._call, environ(scope, AbsentBody()) | {REFUSAL: busy}), body, send)
            return
        try:
            refusal = await self._collect(body)
            if not body.gone:
                called_with = environ(scope, body.content, body.content.getbuffer().nbytes) | {REFUSAL: refusal}
                await self._send(await self._called(self._call, called_with), body, send)
        finally:
            self._room.give_back(taken)

    async def _called(self, call: Caller, called_with: Environ) -> Answer:
        """Return the answer of a call, after the delay that it asks for.

        At most `_MOST_DELAYED` answers are held back at a time; with others, the connection is closed instead.
        """
        answer = await call(called_with)
        seconds = called_with.get(DELAY, 0.0)
        if not seconds or self._ending:
            return answer
        if self._delayed >= _MOST_DELAYED:
            return replace(answer, headers=[*answer.headers, (b"connection", b"close")])
        self._delayed += 1
        try:
            async with self._within(seconds, 0.0):
                await asyncio.sleep(seconds)
        except TimeoutError:
            pass
        finally:
            self._delayed -= 1
        return answer

    async def _collect(self, body: _Body) -> Refusal | None:
        """Collect the body, up to one byte more than is allowed, and return None, or why it is not here."""
        if body.whole:
            return None
        seconds = REQUEST_SECONDS if body.expects_continue else body.seconds_left
        try:
            async with self._within(seconds, _END_SECONDS):
                while not body.whole and body.content.tell() <= self._largest:
                    body.content.write(await body.next())
        except TimeoutError:
            if self._ending:
                return Refusal(408, "the server ends, and the request was not here in time: send it again")
            late = f"the request was not here within {REQUEST_SECONDS:g} s: send it faster, or less at a time"
            return Refusal(408, late)
        body.content.seek(0)
        return None

    async def _send(self, answer: Answer, body: _Body, send: Send) -> None:
        """Send the answer; the connection stays if the whole request has arrived, or does so soon.

        Closed with bytes unread, the connection would be reset, and the answer lost on its way: what still comes is
        taken until the client has read the answer and closes (RFC 9112, section 9.6).
        """
        if not (body.arrived or body.held_back):
            await self._discard(body, _DRAIN_SECONDS)
        headers = answer.headers
        if not any(name == b"content-length" for name, _ in headers) and answer.status not in (204, 304):
            headers = [*headers, (b"content-length", str(len(answer.body)).encode())]
        stays = body.arrived
        if self._ending or not stays:
            headers = [*headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": not stays})
        if not stays:
            await self._discard(body, _LINGER_SECONDS if answer.status == 408 else REQUEST_SECONDS)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, body: _Body, seconds: float) -> None:
        """Take what comes of the body, for so many seconds, and keep nothing of it."""
        try:
            async with self._within(seconds, LAST_REQUEST_SECONDS):
                while not (body.whole or body.gone):
                    await body.next()
        except TimeoutError:
            pass

    @asynccontextmanager
    async def _within(self, seconds: float, last: float) -> AsyncIterator[None]:
        """Raise TimeoutError after so many seconds, and `last` seconds after the end has begun."""
        async with asyncio.timeout(min(seconds, last) if self._ending else seconds) as timeout:
            self._timeouts[timeout] = last
            try:
                yield
            finally:
                del self._timeouts[timeout]

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start the service before the first request is taken, and stop it after the last was answered."""
        await receive()
        self._service.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_end, number, signal.getsignal(number))
        gc.collect()
        gc.freeze()  # what has been imported so far stays: no collection has to go through it again
        gc.enable()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._ask.end()
        self._call.end()
        self._service.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _begin_end(self, number: signal.Signals, stop: Any) -> None:
        """Tell all clients that their next answer is the last; then have uvicorn finish what is under way.

        uvicorn closes idle connections at once: a client whose next request is on its way would see it fail.
        """
        if self._ending:
            return
        self._ending = True
        _log.info("ending: requests under way are finished", extra={"signal": number.name})
        self._service.ending.set()  # whoever waits for a job is told its address now
        loop = asyncio.get_running_loop()
        for timeout, last in self._timeouts.items():
            if (due := timeout.when()) is not None and not timeout.expired():
                timeout.reschedule(min(due, loop.time() + last))
        loop.call_later(_LAST_SECONDS, stop, number, None)


class _Body:
    """A request's body as it arrives.

    Attributes:
        length: bytes, as the head declares them; None if it does not.
        content: what was collected.
        whole: whether nothing more is to come.
        gone: whether the client has closed the connection before.
    """

    def __init__(self, scope: Message, receive: Receive):
        self._receive = receive
        self._arrival: Arrival = arrival(scope)
        headers = dict(scope["headers"])
        self.length: int | None = int(headers.get(b"content-length", b"0"))
        if b"transfer-encoding" in headers:
            self.length = None
        self.content = io.BytesIO()
        self.whole = self.length == 0
        self.gone = False
        self._asked = False

    @property
    def small(self) -> bool:
        """Whether it takes little memory."""
        return self.length is not None and self.length <= SMALL_BODY

    @property
    def seconds_left(self) -> float:
        """Seconds that it may take to arrive."""
        return self._arrival.seconds_left

    @property
    def expects_continue(self) -> bool:
        """Whether the client asks before it sends the body."""
        return self._arrival.expects_continue and not self.whole

    @property
    def arrived(self) -> bool:
        """Whether nothing more is to come, even if some of it has not been collected."""
        return self.whole or self._arrival.complete

    @property
    def held_back(self) -> bool:
        """Whether the client still waits to be asked for it, as far as one can tell."""
        return self._arrival.expects_continue and not self._asked and not self.arrived

    async def next(self) -> bytes:
        """Return the next piece; the first call asks a client that holds the body back."""
        self._asked = True
        message = await self._receive()
        self.gone = message["type"] == "http.disconnect"
        self.whole = self.gone or not message.get("more_body", False)
        return message.get("body", b"")


def create() -> Gateway:
    """Return the application of this process. uvicorn calls this once in each process."""
    _bound_memory()
    _raise_file_limit()
    if (supervisor := multiprocessing.parent_process()) is not None:
        _forget_dead_workers()
        # prctl(PR_SET_PDEATHSIG = 1, …): without the process that supervises it, a worker ends in order.
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != supervisor.pid:  # it died before the call
            sys.exit("the process that supervises this worker is gone")
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.disable()  # until all is imported, of which nothing is garbage
    from serving.app import create_app

    return Gateway(create_app(), threads())


def threads() -> int:
    """Return how many requests are answered at a time; most wait, what takes the processor has own limits."""
    return int(os.environ.get("INSPECTLINE_THREADS") or max(32, 4 * usable_cores()))


def _bound_memory() -> None:
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc
        # Decoded images go back to the system at once, instead of being kept for each thread: 90 MB of 270, measured.
        libc.mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD, bytes
        # What is smaller stays: given back and asked for anew with each image, it costs 1.5 ms of 13.
        libc.mallopt(-1, 16 << 20)  # M_TRIM_THRESHOLD, bytes
        libc.mallopt(-8, 2)  # M_ARENA_MAX


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _forget_dead_workers() -> None:
    """Take back the state that workers which are gone said of themselves; their counts stay."""
    from prometheus_client.multiprocess import mark_process_dead

    for path in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("*.db"):
        number = path.stem.rpartition("_")[2]
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            mark_process_dead(int(number))
