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


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("told", [True, _DEFER], ids=["answered", "silent"])
def test_finish_request_when_ending_then_clients_that_stay_connected_do_not_wait_for_each_other(
    ending: Worker, told: Any
):
    pairs = [socket.socketpair() for _ in range(20 * CLIENTS)]
    for _, ours in pairs:
        finish(ending, ours, told)
    # One after the other they would take 320 s.
    assert end(ending) < 8
    for client, _ in pairs:
        assert client.recv(1) == b""
        client.close()


@pytest.mark.parametrize("told", [True, _DEFER], ids=["answered", "silent"])
def test_finish_request_when_ending_then_one_more_request_is_answered_and_told_that_it_is_the_last(
    ending: Worker, told: Any
):
    client, ours = socket.socketpair()
    with client:
        finish(ending, ours, told)
        client.sendall(REQUEST)
        assert end(ending) < 30
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nok")


def test_murder_keepalived_when_ending_then_an_idle_client_may_send_one_more_request(ending: Worker):
    client, ours = socket.socketpair()
    with client:
        ending.alive = True
        finish(ending, ours, True)
        assert len(ending.keepalived_conns) == 1
        ending.alive = False
        ending.murder_keepalived()
        client.sendall(REQUEST)
        assert end(ending) < 30
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_handle_when_the_end_comes_while_the_app_answers_then_the_client_is_told_that_it_is_the_last(ending: Worker):
    client, ours = socket.socketpair()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        ending.alive = False
        return answer_ok(environ, start_response)

    ending.alive, ending.wsgi = True, app
    with client:
        client.sendall(REQUEST)
        connection = TConn(ending.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        assert ending.handle(connection) is False
        answer = b"".join(iter(lambda: client.recv(4096), b""))
        connection.close()
    assert b"\r\nConnection: close\r\n" in answer


def test_handle_when_the_end_comes_between_two_requests_then_the_second_is_answered(ending: Worker):
    client, ours = socket.socketpair()
    ending.alive = True
    with client:
        client.sendall(REQUEST)
        connection = TConn(ending.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        assert ending.handle(connection) is True
        assert b"\r\nConnection: keep-alive\r\n" in client.recv(4096)
        ending.alive = False
        client.sendall(REQUEST)
        assert ending.handle(connection) is False
        answer = client.recv(4096)
        connection.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer


def test_handle_when_the_end_comes_while_two_requests_are_here_then_both_are_answered(ending: Worker):
    client, ours = socket.socketpair()
    said: list[bytes] = []

    class Body(list[bytes]):
        def close(self) -> None:  # the first answer is on its way, and said that the client may go on
            said.append(client.recv(4096))
            ending.alive = False

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return Body(answer_ok(environ, start_response))

    ending.alive, ending.wsgi = True, app
    with client:
        client.sendall(2 * REQUEST)
        connection = TConn(ending.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        assert ending.handle(connection) is False
        connection.close()
    assert [b"\r\nConnection: keep-alive\r\n" in said[0], b"\r\nConnection: close\r\n" in said[1]] == [True, True]


def test_run_when_told_to_end_before_it_began_then_those_in_line_are_answered(ending: Worker):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        ending.sockets, ending.ppid = [listener], os.getppid()
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(REQUEST)
            ending.poller.unregister(ending.method_queue.fileno())
            ending.run()
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
