"""Gunicorn's worker as ours changes it, on real sockets and without a server around it."""

import concurrent.futures
import contextlib
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.body import LengthReader
from gunicorn.workers.gthread import _DEFER, TConn

import serving.worker
from serving.refusals import Refusal
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


def connection(worker: Worker, ours: socket.socket) -> TConn:
    """Return what the worker makes of a client's socket."""
    return TConn(worker.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2))


def finish(worker: Worker, ours: socket.socket, told: Any) -> None:
    """Have a thread's result for a connection taken."""
    done: Future[Any] = Future()
    done.set_result(told)
    worker.nr_conns += 1
    worker.finish_request(connection(worker, ours), done)


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
        conn = connection(ending, ours)
        assert ending.handle(conn) is False
        answer = b"".join(iter(lambda: client.recv(4096), b""))
        conn.close()
    assert b"\r\nConnection: close\r\n" in answer


def test_handle_when_the_end_comes_between_two_requests_then_the_second_is_answered(ending: Worker):
    client, ours = socket.socketpair()
    ending.alive = True
    with client:
        client.sendall(REQUEST)
        conn = connection(ending, ours)
        assert ending.handle(conn) is True
        assert b"\r\nConnection: keep-alive\r\n" in client.recv(4096)
        ending.alive = False
        client.sendall(REQUEST)
        assert ending.handle(conn) is False
        answer = client.recv(4096)
        conn.close()
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
        conn = connection(ending, ours)
        assert ending.handle(conn) is False
        conn.close()
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


def refuse(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """A WSGI app that reads no body."""
    start_response("413 Content Too Large", [("Content-Length", "0")])
    return []


def post(size: int) -> bytes:
    """Return the head of an upload."""
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size


def test_handle_when_a_request_begins_while_ending_and_goes_no_further_then_it_is_given_up_soon(
    ending: Worker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving.worker, "_LAST_REQUEST_SECONDS", 0.5)
    client, ours = socket.socketpair()
    with client:
        client.sendall(REQUEST[:20])
        began = time.monotonic()
        assert ending.handle(connection(ending, ours)) is False
        assert time.monotonic() - began < 10  # instead of 30
        ours.close()


def test_handle_when_the_end_comes_during_an_upload_that_goes_no_further_then_it_is_given_up(
    ending: Worker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving.worker, "_END_SECONDS", 0.5)
    refused: list[Refusal] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        ending.alive = False
        with pytest.raises(Refusal) as caught:
            environ["wsgi.input"].read()
        refused.append(caught.value)
        return refuse(environ, start_response)

    ending.alive, ending.wsgi = True, app
    client, ours = socket.socketpair()
    with client:
        client.sendall(post(1000) + b"x" * 10)
        began = time.monotonic()
        assert ending.handle(connection(ending, ours)) is False
        assert time.monotonic() - began < 10  # instead of 30
        ours.close()
    assert [str(one) for one in refused] == ["the server ends, and the request was not here in time: send it again"]


def test_handle_when_the_end_comes_and_a_refused_client_goes_no_further_then_it_is_given_up(
    ending: Worker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving.worker, "_LAST_REQUEST_SECONDS", 0.5)
    ending.alive, ending.wsgi = True, refuse
    client, ours = socket.socketpair()
    with client:
        client.sendall(post(1_000_000) + b"x" * 10)
        began = time.monotonic()
        threading.Timer(2, lambda: setattr(ending, "alive", False)).start()
        assert ending.handle(connection(ending, ours)) is False
        assert 1.5 < time.monotonic() - began < 10  # instead of 30
        assert client.recv(4096).startswith(b"HTTP/1.1 413")
        ours.close()


def test_handle_when_a_refused_client_sends_for_a_while_during_the_end_then_it_reads_why(ending: Worker):
    ending.wsgi = refuse
    client, ours = socket.socketpair()
    with client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        client.sendall(post(30_000))
        handled = pool.submit(ending.handle, connection(ending, ours))
        for _ in range(30):
            client.sendall(b"x" * 1000)  # a broken pipe, were it closed
            time.sleep(0.07)
        assert client.recv(4096).startswith(b"HTTP/1.1 413")
        client.close()
        assert handled.result() is False
        ours.close()


def test_handle_when_clients_do_not_close_then_they_do_not_hold_up_others_at_the_end(ending: Worker):
    pairs = [socket.socketpair() for _ in range(40 * CLIENTS)]
    for client, ours in pairs:
        finish(ending, ours, True)
        client.sendall(REQUEST)
    # Half a second each, eight at a time, they would take 20 s.
    assert end(ending) < 10
    for client, _ in pairs:
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        client.close()


def test_finish_request_when_the_app_fails_in_the_middle_of_an_answer_then_the_connection_counts_once(ending: Worker):
    class Body(list[bytes]):
        def close(self) -> None:
            raise RuntimeError("in the middle")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return Body(answer_ok(environ, start_response))

    ending.alive, ending.wsgi = True, app
    client, ours = socket.socketpair()
    with client:
        client.sendall(REQUEST)
        conn = connection(ending, ours)
        ending.nr_conns = 5
        ending.enqueue_req(conn)
        ending.wait_for_and_dispatch_events(30)
        assert ending.nr_conns == 4


@pytest.mark.parametrize("asked", [None, 1 << 16, 100], ids=["whole", "64 kB at a time", "100 bytes at a time"])
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_handle_when_requests_with_large_bodies_follow_each_other_then_the_app_gets_each_whole(
    ending: Worker, kind: str, asked: int | None
):
    bodies = [random.Random(number).randbytes(300_000 + number) for number in range(3)]
    got: list[bytes] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        stream = environ["wsgi.input"]
        got.append(b"".join(iter(lambda: stream.read(asked), b"")))
        return answer_ok(environ, start_response)

    def sent(body: bytes) -> bytes:
        if kind == "length":
            return post(len(body)) + body
        pieces = [body[start : start + 7000] for start in range(0, len(body), 7000)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        return b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

    ending.alive, ending.wsgi = True, app
    client, ours = socket.socketpair()
    with client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        handled = pool.submit(ending.handle, connection(ending, ours))
        client.sendall(b"".join(map(sent, bodies)))
        assert handled.result(30) is True
        assert client.recv(4096).count(b"HTTP/1.1 200 OK") == 3
        ours.close()
    assert got == bodies


def test_handle_when_a_body_is_large_then_it_is_taken_in_large_pieces(ending: Worker, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    read = LengthReader.read
    monkeypatch.setattr(LengthReader, "read", lambda self, size: sizes.append(size) or read(self, size))

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        assert len(environ["wsgi.input"].read()) == 2_000_000
        return answer_ok(environ, start_response)

    ending.alive, ending.wsgi = True, app
    client, ours = socket.socketpair()
    with client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        handled = pool.submit(ending.handle, connection(ending, ours))
        client.sendall(post(2_000_000) + bytes(2_000_000))
        assert handled.result(30) is True
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        ours.close()
    assert len(sizes) < 50  # gunicorn alone: 1,955, each of which copies all that is here


def test_handle_when_the_app_finds_a_body_in_broken_chunks_then_what_follows_is_no_request(ending: Worker):
    asked: list[str] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        asked.append(environ["REQUEST_METHOD"])
        with contextlib.suppress(Exception):
            environ["wsgi.input"].read()
        return answer_ok(environ, start_response)

    ending.alive, ending.wsgi = True, app
    client, ours = socket.socketpair()
    with client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        handled = pool.submit(ending.handle, connection(ending, ours))
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
        assert b"Connection: close" in client.recv(4096)
        client.sendall(REQUEST)
        client.shutdown(socket.SHUT_WR)
        assert handled.result(30) is False
        ours.close()
    assert asked == ["POST"]


def test_is_parent_alive_when_the_server_is_gone_then_the_worker_ends(ending: Worker):
    ending.alive, ending.ppid = True, os.getppid()
    assert ending.is_parent_alive()
    ending.ppid = 1 + os.getppid()
    assert not ending.is_parent_alive()
    assert not ending.alive
