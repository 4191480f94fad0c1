"""What comes over a connection: requests one after another, cut off, broken, too large, or half closed."""

import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.serving.conftest import Server

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """Give a connection."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        yield client


def rest(client: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    received = b""
    try:
        while more := client.recv(65536):
            received += more
    except ConnectionResetError:
        pass
    return received


def statuses(received: bytes) -> list[int]:
    """Return the statuses of the answers."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


@pytest.fixture
def started(server: Server) -> Server:
    """A server that answers, without a model."""
    return server.start()


def test_body_when_in_broken_chunks_then_what_follows_is_no_request(started: Server):
    with connected(started) as client:
        client.sendall(CHUNKED + b"5\r\nhello\r\nzz\r\n" + HEALTH)
        client.shutdown(socket.SHUT_WR)
        received = rest(client)
    assert b"alive" not in received
    assert statuses(received) in ([], [400])


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_bodies_when_large_and_one_after_another_then_each_is_taken_whole(started: Server, kind: str):
    head = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

    def request(number: int) -> bytes:
        """Ask for a login under a name that the refusal does not tell, padded to some size."""
        body = b'{"name": "nobody", "password": "%d"}' % number + b" " * (50_000 + number)
        if kind == "length":
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        pieces = [body[start : start + 7000] for start in range(0, len(body), 7000)]
        return (
            head
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        )

    with connected(started) as client:
        client.sendall(b"".join(map(request, range(3))) + HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = rest(client)
    found = statuses(received)
    assert len(found) == 4
    assert found[3] == 200
    assert len(set(found[:3])) == 1
    assert found[0] not in (400, 413)  # it was read whole, and is valid JSON


def test_head_when_endless_then_refused_and_little_is_kept(started: Server):
    with connected(started) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX-Endless: ")
        with pytest.raises(OSError):  # noqa: PT011  broken pipe, or reset
            for _ in range(2000):
                client.sendall(b"x" * 10_000)
    with connected(started) as client:
        client.sendall(HEALTH)
        assert statuses(client.recv(65536)) == [200]


def test_trailers_when_they_follow_a_body_then_they_are_no_headers(started: Server):
    with connected(started) as client:
        client.sendall(CHUNKED + b"2\r\n{}\r\n0\r\nSec-Fetch-Site: cross-site\r\nX-Late: 1\r\n\r\n" + HEALTH)
        received = b""
        while b"alive" not in received:
            received += (more := client.recv(65536))
            assert more, received
    assert b"another site" not in received


def test_trailers_when_endless_then_refused(started: Server):
    with connected(started) as client:
        client.sendall(CHUNKED + b"2\r\n{}\r\n0\r\nX-Endless: ")
        with pytest.raises(OSError):  # noqa: PT011  broken pipe, or reset
            for _ in range(2000):
                client.sendall(b"x" * 10_000)


def test_request_when_its_client_closes_its_own_direction_then_it_is_answered(started: Server):
    with connected(started) as client:
        client.sendall(HEALTH)
        client.shutdown(socket.SHUT_WR)
        assert statuses(client.recv(65536)) == [200]


def test_header_when_underscores_make_it_look_like_the_proxys_then_it_is_left_out(server: Server):
    server.start(INSPECTLINE_PROXIES="1")
    with connected(server) as client:
        forged = (
            b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\nX_Forwarded_For: 198.51.100.1\r\n\r\n"
        )
        client.sendall(forged)
        assert statuses(client.recv(65536)) == [404]
    server.end()
    (line,) = [line for line in server.lines() if line.get("path") == "/nothing"]
    assert line["remote"] == "203.0.113.7"


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /\xff\xfe?x=\xff HTTP/1.1", b"GET /health/live?x=\xff\xfe HTTP/1.1", b"GET", b"\0\0\0",
        b"OPTIONS * HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"PRI * HTTP/2.0",
    ],
)  # fmt: skip
def test_request_when_its_first_line_is_odd_then_refused_and_no_error_of_ours(started: Server, request_line: bytes):
    with connected(started) as client:
        client.sendall(request_line + b"\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        client.shutdown(socket.SHUT_WR)
        assert all(status < 500 for status in statuses(rest(client)))
    assert "Traceback" not in started.log.read_text(encoding="utf-8")


def test_content_lengths_when_they_differ_or_stand_beside_chunks_then_refused(started: Server):
    for fields in (b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5\r\nTransfer-Encoding: chunked"):
        with connected(started) as client:
            client.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n0\r\n\r\n" + HEALTH)
            client.shutdown(socket.SHUT_WR)
            received = rest(client)
        assert statuses(received)[:1] == [400]
        assert b"alive" not in received


def test_bodies_when_random_pieces_arrive_then_the_answer_is_the_same(started: Server):
    generator = random.Random(3)
    body = b'{"name": "nobody"}' + b" " * 70_000  # more than is collected unasked, and than JSON may have
    head = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    for _ in range(3):
        with connected(started) as client:
            whole, start = head + body, 0
            while start < len(whole):
                step = generator.randint(1, 30_000)
                client.sendall(whole[start : start + step])
                start += step
            assert statuses(client.recv(65536)) == [413]
