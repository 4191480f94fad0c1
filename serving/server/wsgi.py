"""Calls a WSGI application (PEP 3333) for a request of an ASGI server, once its body is in memory, or without it."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

Environ = dict[str, Any]
_PLAIN = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}


class BodyRequired(BaseException):
    """The application asks for a body that is not here yet. No `Exception`, so that nothing answers it."""


class AbsentBody(io.RawIOBase):
    """Stands in for a body that is not here yet."""

    def readable(self) -> bool:
        """Tell that it is an input."""
        return True

    def readinto(self, _: Any) -> int:
        """Raise BodyRequired."""
        raise BodyRequired


@dataclass(frozen=True)
class Answer:
    """A whole response.

    Attributes:
        status: the HTTP status.
        headers: names and values.
        body: the content, empty for HEAD.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def environ(scope: MutableMapping[str, Any], body: BinaryIO | AbsentBody, length: int | None = None) -> Environ:
    """Return the environment of a call.

    Args:
        scope: the request's ASGI scope.
        body: what is read as `wsgi.input`.
        length: bytes in `body`; by default, what the request's head declares.
    """
    server, client = scope.get("server") or ("", None), scope.get("client") or ("", 0)
    made: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if b"_" in name:  # X_Forwarded_For would pass for the proxy's X-Forwarded-For
            continue
        key = _PLAIN.get(name) or f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        made[key] = f"{made[key]},{text}" if key in made else text
    if length is not None:
        made["CONTENT_LENGTH"] = str(length)
        made.pop("HTTP_TRANSFER_ENCODING", None)
    return made


class Caller:
    """Calls `application` in up to `threads` threads."""

    def __init__(self, application: Callable[..., Iterable[bytes]], threads: int):
        self._application = application
        self._threads = ThreadPoolExecutor(threads, "request")

    async def __call__(self, called_with: Environ) -> Answer:
        """Return the application's answer as soon as it is whole; the application closes it afterwards.

        Raises:
            BodyRequired: the application has read from an absent body.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._threads.submit(self._run, called_with, loop, answer)
        return await answer

    def end(self) -> None:
        """Return when the last call is over."""
        self._threads.shutdown()

    def _run(self, called_with: Environ, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Answer]) -> None:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., Any]:
            started[:] = [status, headers]
            return io.BytesIO().write  # Flask does not use it

        try:
            pieces = self._application(called_with, start_response)
            try:
                body = b"".join(pieces)
                status, headers = cast(tuple[str, list[tuple[str, str]]], started)
                encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
                whole = Answer(int(status.partition(" ")[0]), encoded, body)
                loop.call_soon_threadsafe(_settle, answer, whole, None)
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
        except BaseException as error:
            loop.call_soon_threadsafe(_settle, answer, None, error)


def _settle(answer: asyncio.Future[Answer], whole: Answer | None, error: BaseException | None) -> None:
    if answer.done():  # given up
        return
    if whole is not None:
        answer.set_result(whole)
    else:
        answer.set_exception(cast(BaseException, error))
