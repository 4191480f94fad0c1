"""Gunicorn's worker as ours changes it, on real sockets and without a server around it."""

import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import _DEFER, TConn

from serving.worker import Log, Worker

CLIENTS = 8


def answer_ok(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """A WSGI app."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture
def ending() -> Iterator[Worker]:
    """A worker that has been told to end."""
    settings = Config()
    settings.set("threads", CLIENTS)
    worker = Worker(0, os.getpid(), [], None, 30, settings, Log(settings))
    worker.wsgi = answer_ok
    worker.tpool = worker.get_thread_pool()
    worker.method_queue.init()
    worker.poller = selectors.DefaultSelector()
    worker.poller.register(worker.method_queue.fileno(), selectors.EVENT_READ, worker.method_queue.run_callbacks)
    worker.alive = False
    yield worker
    worker.tpool.shutdown()
    worker.poller.close()
    worker.method_queue.close()
    worker.tmp.close()


def finish(worker: Worker, ours: socket.socket, told: Any) -> None:
    """Have a thread's result for a connection taken."""
    done: Future[Any] = Future()
    done.set_result(told)
    worker.nr_conns += 1
    worker.finish_request(TConn(worker.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2)), done)


def end(worker: Worker) -> float:
    """Run the worker until it has no connection, and return the seconds that it took, 30 at most."""
    began = time.monotonic()
    while worker.nr_conns and time.monotonic() - began < 30:
        worker.wait_for_and_dispatch_events(1)
        worker.murder_keepalived()
        worker.murder_pending()
    return time.monotonic() - began


@pytest.mark.parametrize(("told", "clients"), [(True, CLIENTS), (_DEFER, 20 * CLIENTS)], ids=["answered", "silent"])
def test_finish_request_when_ending_then_clients_that_stay_connected_do_not_wait_for_each_other(
    ending: Worker, told: Any, clients: int
):
    pairs = [socket.socketpair() for _ in range(clients)]
    for _, ours in pairs:
        finish(ending, ours, told)
    # One after the other they would take 16 s and more.
    assert end(ending) < 8
    for client, _ in pairs:
        assert client.recv(1) == b""
        client.close()


def test_finish_request_when_ending_then_a_request_that_comes_late_is_answered_and_told_that_it_is_the_last(
    ending: Worker,
):
    client, ours = socket.socketpair()
    with client:
        finish(ending, ours, _DEFER)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert end(ending) < 30
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nok")


def test_handle_when_the_end_comes_while_the_app_answers_then_the_client_is_told_that_it_is_the_last(ending: Worker):
    client, ours = socket.socketpair()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        ending.alive = False
        return answer_ok(environ, start_response)

    ending.alive, ending.wsgi = True, app
    with client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection = TConn(ending.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        assert ending.handle(connection) is False
        answer = b"".join(iter(lambda: client.recv(4096), b""))
        connection.close()
    assert b"\r\nConnection: close\r\n" in answer
