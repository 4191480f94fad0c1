"""Requests whose end a proxy in front could see elsewhere: refused with 400, and nothing after them is a request.

RFC 9112, sections 2.2, 2.3, 3.2, 5, 6.1, 7.1 and 11.2.
"""

import socket
import time

import pytest

from tests.serving.conftest import Server
from tests.serving.server.test_connection import CHUNKED, HEALTH, connected, rest, started, statuses

__all__ = ["started"]
SMUGGLED = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"name": "nobody"}'
SIZE = b"%x" % len(BODY)
LAST = b"\r\n0\r\n\r\n"
CHUNKS = {
    "extension LF": SIZE + b";a\nb\r\n" + BODY + LAST,
    "extension ends with LF": SIZE + b";a\n" + BODY + LAST,
    "extension value LF": SIZE + b";a=b\n" + BODY + LAST,
    "extension value ends with LF": SIZE + b";a=b\nc\r\n" + BODY + LAST,
    "extension quoted LF": SIZE + b';a="\n"\r\n' + BODY + LAST,
    "extension escaped LF": SIZE + b';a="\\\n"\r\n' + BODY + LAST,
    "extension after quotes LF": SIZE + b';a="b"\n' + BODY + LAST,
    "extension empty LF": SIZE + b";\n" + BODY + LAST,
    "extension CR": SIZE + b";a\rb\r\n" + BODY + LAST,
    "extension NUL": SIZE + b";a\0b\r\n" + BODY + LAST,
    "size LF": SIZE + b"\n" + BODY + LAST,
    "size CR": SIZE + b"\r" + BODY + LAST,
    "size signed": b"+" + SIZE + b"\r\n" + BODY + LAST,
    "size 0x": b"0x" + SIZE + b"\r\n" + BODY + LAST,
    "size underscore": b"0_" + SIZE + b"\r\n" + BODY + LAST,
    "size blank": b" " + SIZE + b"\r\n" + BODY + LAST,
    "size then blank": SIZE + b" \r\n" + BODY + LAST,
    "size too large": b"1" + b"0" * 16 + SIZE + b"\r\n" + BODY + LAST,
    "size missing": b"\r\n" + BODY + LAST,
    "data LF": SIZE + b"\r\n" + BODY + b"\n0\r\n\r\n",
    "data longer": SIZE + b"\r\n" + BODY + b"x\r\n0\r\n\r\n",
    "last extension LF": SIZE + b"\r\n" + BODY + b"\r\n0;a\nb\r\n\r\n",
    "last LF": SIZE + b"\r\n" + BODY + b"\r\n0\n\r\n",
    "end LF": SIZE + b"\r\n" + BODY + b"\r\n0\r\n\n",
    "trailer LF": SIZE + b"\r\n" + BODY + b"\r\n0\r\nA: b\n\r\n",
    "trailer CR": SIZE + b"\r\n" + BODY + b"\r\n0\r\nA: b\rc\r\n\r\n",
}
FORM = b"Content-Type: application/json\r\n"
HEADS = {
    "line LF": b"GET /user HTTP/1.1\nHost: x\r\n\r\n",
    "line without version": b"GET /user\r\nHost: x\r\n\r\n",
    "line without version LF": b"GET /user\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "version 0.9": b"GET /user HTTP/0.9\r\nHost: x\r\n\r\n",
    "version 2": b"GET /user HTTP/2.0\r\nHost: x\r\n\r\n",
    "field LF": b"GET /user HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "field CR": b"GET /user HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
    "field CR inside": b"GET /user HTTP/1.1\r\nHost: x\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n",
    "field NUL": b"GET /user HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "end LF": b"GET /user HTTP/1.1\r\nHost: x\r\n\n",
    "folded": b"GET /user HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "blank before colon": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "no colon": b"GET /user HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n",
    "no name": b"GET /user HTTP/1.1\r\nHost: x\r\n: abc\r\n\r\n",
    "no host": b"GET /user HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /user HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "two equal hosts": b"GET /user HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n",
    "odd host": b"GET /user HTTP/1.1\r\nHost: x/../y\r\n\r\n",
    "host with user": b"GET /user HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "lengths differ": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length listed": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n{}",
    "length signed": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}",
    "length and chunks": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": b"POST /login HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "other coding": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding identity": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
    "two codings": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked first": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "two coding fields": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding VT": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
}  # fmt: skip


def exchange(server: Server, pieces: list[bytes]) -> bytes:
    """Send pieces one after another, and return all that comes until the server closes the connection."""
    with connected(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            try:
                client.sendall(piece)
            except OSError:  # closed already
                break
            if len(pieces) > 1:
                time.sleep(0.01)
        client.settimeout(5)  # the connection is closed long before
        return rest(client)


def answer(client: socket.socket) -> bytes:
    """Return one whole answer, by its Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.mark.parametrize("case", CHUNKS)
def test_chunks_when_their_lines_are_odd_then_400_and_closed(started: Server, case: str):
    body = CHUNKS[case]
    received = exchange(started, [CHUNKED + body + SMUGGLED])
    assert statuses(received) == [400]
    assert b"alive" not in received
    apart = exchange(started, [CHUNKED, body + SMUGGLED])
    assert statuses(apart)[:1] == [400]
    assert b"alive" not in apart


def test_chunks_when_they_come_byte_by_byte_then_refused_too(started: Server):
    for case in ("extension LF", "extension quoted LF", "size LF", "data LF", "trailer LF"):
        body = CHUNKS[case] + SMUGGLED
        received = exchange(started, [CHUNKED, *(body[place : place + 1] for place in range(len(body)))])
        assert b"alive" not in received, case


@pytest.mark.parametrize("case", HEADS)
def test_head_when_it_could_be_read_in_two_ways_then_400_and_closed(started: Server, case: str):
    received = exchange(started, [HEADS[case] + SMUGGLED])
    assert statuses(received) == [400]
    assert b"alive" not in received
    assert b'{"error": ' in received


@pytest.mark.parametrize(
    "request_",
    [
        CHUNKED + SIZE + b';a=b;c="d e";f\r\n' + BODY + b"\r\n0;last\r\nTrailer: x\r\n\r\n",
        CHUNKED.replace(b"chunked", b"Chunked") + SIZE + b"\r\n" + BODY + LAST,
        b"POST /login HTTP/1.1\r\nHost: [::1]:8000\r\nContent-Length: 18\r\nContent-Type: application/json\r\n\r\n"
        + BODY,
        b"POST /login HTTP/1.0\r\nContent-Length: 18\r\nContent-Type: application/json\r\n\r\n" + BODY,
        b"\r\nPOST /login HTTP/1.1\r\nHost:\r\nContent-Length: 18\r\nContent-Type: application/json\r\n\r\n" + BODY,
    ],
    ids=["extensions", "case", "IPv6", "HTTP/1.0", "empty line"],
)
def test_request_when_it_is_as_the_rfc_allows_then_taken(started: Server, request_: bytes):
    with connected(started) as client:
        client.sendall(request_)
        received = answer(client)
        assert statuses(received) == [400]
        assert b"password is missing" in received


def test_upgrade_when_asked_for_then_answered_and_nothing_after_it_is_a_request(started: Server):
    asks = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    half = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    received = exchange(started, [asks + half, SMUGGLED])
    assert statuses(received) == [200]
    assert received.count(b"alive") == 1


def test_answer_when_it_was_given_before_the_body_breaks_then_no_second_one(started: Server):
    head = CHUNKED.replace(b"/login", b"/nothing")
    with connected(started) as client:
        client.sendall(head + b"5\r\nhello\r\n")
        assert statuses(answer(client)) == [404]
        client.sendall(b"5;a\nb\r\nhello\r\n0\r\n\r\n" + HEALTH)
        assert rest(client) == b""
