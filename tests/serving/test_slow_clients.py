"""Clients that send a byte now and then hold neither a thread nor the others."""

import contextlib
import re
import socket
import threading
import time

import pytest
import requests

from tests.conftest import wait_until
from tests.serving.conftest import Registry, Server

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize("sent", [HEAD, b"POST /predict HTTP/1.1\r\nX-Slow: ", b""], ids=["body", "headers", "nothing"])
def test_request_when_it_drips_in_then_ended_and_others_are_answered(
    server: Server, registry: Registry, good_file: bytes, sent: bytes
):
    version = registry.register()
    server.start(INSPECTLINE_REQUEST_SECONDS="2", INSPECTLINE_THREADS="4").until_version(version)
    host, port = server.address.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(6)]
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.3):
            for one in slow:
                try:
                    one.send(b"x" if sent else b"")
                except OSError:
                    return

    for one in slow:
        one.sendall(sent)
    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        began = time.monotonic()
        assert server.predict(good_file).status_code == 200
        assert time.monotonic() - began < 15
        if sent == HEAD:
            slow[0].settimeout(10)
            assert slow[0].recv(1000).startswith(b"HTTP/1.1 408")
        for one in slow if sent else []:
            one.settimeout(15)
            wait_until(lambda open_=one: ended(open_), 15, "the connection's end")
    finally:
        stop.set()
        dripping.join()
        for one in slow:
            one.close()
    assert server.predict(good_file).status_code == 200


def ended(connection: socket.socket) -> bool:
    """Tell whether the other side has closed."""
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True


def answer_on(connection: socket.socket) -> tuple[int, str, bytes]:
    """Read one whole answer; return its status, what it says of the connection, and the body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (more := connection.recv(65536))
        assert more, f"closed without a whole answer: {received!r}"
    head, _, body = received.partition(b"\r\n\r\n")
    lines = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    fields = {name.lower(): value for name, value in lines}
    while len(body) < int(fields["content-length"]):
        body += connection.recv(65536)
    return int(head.split()[1]), fields.get("connection", "keep-alive"), body


@pytest.mark.parametrize("pause", [0.0, 2.0])
def test_request_when_refused_before_its_image_has_come_then_the_answer_is_true_about_the_connection(
    server: Server, pause: float
):
    server.start()
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(HEAD + b"x" * 1000)  # there is no model: refused unread
        time.sleep(pause)
        client.sendall(b"x" * 99_000)
        status, said, body = answer_on(client)
        assert status == 503, body
        if pause:
            assert said == "close"
        if said == "close":
            assert client.recv(1000) == b""
        else:
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_on(client)[0] == 200


GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


def asking(size: int) -> bytes:
    """The head of a request that waits to be asked for its image of `size` bytes."""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {size}\r\n"
    return head.encode() + b"Expect: 100-continue\r\n\r\n"


def test_request_when_its_client_asks_before_it_sends_then_a_refusal_comes_instead_of_the_body(
    server: Server, registry: Registry, good_file: bytes
):
    server.start(INSPECTLINE_THREADS="1")
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(asking(len(good_file)))  # there is no model
        assert answer_on(client)[:2] == (503, "close")
        # It does not close; the one thread is free all the same.
        assert requests.get(f"{server.address}/health/live", timeout=15).status_code == 200
    server.until_version(registry.register())
    with socket.create_connection((host, int(port)), timeout=20) as client:
        for _ in range(2):
            client.sendall(asking(len(good_file)))
            assert client.recv(len(GO_ON)) == GO_ON
            client.sendall(good_file)
            assert answer_on(client)[:2] == (200, "keep-alive")


def test_request_when_its_client_asks_and_sends_at_once_then_the_connection_stays(server: Server):
    server.start()
    host, port = server.address.removeprefix("http://").split(":")
    health = b"GET /health/live HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(asking(5) + b"image" + health + health)  # there is no model
        received = b""
        while received.count(b'{"status":"alive"}') < 2:
            received += (more := client.recv(65536))
            assert more, received
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"503", b"200", b"200"]


def test_request_when_refused_client_sends_unasked_then_it_can_send_all_of_it(server: Server):
    server.start()
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(asking(100_000))
        for _ in range(10):  # longer than serving waits for a client that says nothing
            client.sendall(b"x" * 10_000)
            time.sleep(0.2)
        assert answer_on(client)[:2] == (503, "close")
        assert client.recv(1000) == b""


def test_requests_when_sent_at_once_on_one_connection_then_each_is_answered(server: Server):
    server.start()
    host, port = server.address.removeprefix("http://").split(":")
    refused = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    )
    health = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(refused + health + refused + health)
        received = b""
        while received.count(b'{"status":"alive"}') < 2:
            received += (more := client.recv(65536))
            assert more, received
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"503", b"200", b"503", b"200"]


def test_large_bodies_when_there_is_no_more_room_then_503_and_small_ones_are_answered(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start(INSPECTLINE_RECEIVE_MB="1").until_version(version)
    host, port = server.address.removeprefix("http://").split(":")
    large = good_file + b"\0" * (900_000 - len(good_file))
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(asking(len(large)))
        assert slow.recv(len(GO_ON)) == GO_ON  # it has room
        slow.sendall(large[:1000])
        refused = server.predict(large)
        assert refused.status_code == 503
        with socket.create_connection((host, int(port)), timeout=20) as another:
            another.sendall(asking(len(large)))
            assert answer_on(another)[0] == 503
        assert (refused.headers["Retry-After"], "large images" in refused.json()["error"]) == ("5", True)
        chunks = requests.post(
            f"{server.address}/predict", data=iter([good_file]), headers={"Content-Type": "image/png"}, timeout=20
        )
        assert chunks.status_code == 503  # it does not tell its length
        assert server.predict(good_file).status_code == 200
        slow.sendall(large[1000:])
        assert answer_on(slow)[0] in (200, 422)
    assert server.predict(large).status_code in (200, 422)
    with socket.create_connection((host, int(port)), timeout=20) as gone:
        gone.sendall(asking(len(large)))
        assert gone.recv(len(GO_ON)) == GO_ON
        gone.sendall(large[:1000])
    wait_until(lambda: server.predict(large).status_code != 503, 10, "room again after a client that went away")


def test_answers_when_a_client_never_reads_them_then_its_thread_is_free_in_time(server: Server):
    server.start(INSPECTLINE_THREADS="1", INSPECTLINE_REQUEST_SECONDS="2")
    host, port = server.address.removeprefix("http://").split(":")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with deaf:
        deaf.connect((host, int(port)))
        deaf.settimeout(1)
        with contextlib.suppress(OSError):  # full, in both directions
            deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)
        assert requests.get(f"{server.address}/health/live", timeout=15).status_code == 200


def test_connections_when_clients_never_close_them_then_others_are_answered_at_once(server: Server):
    server.start()
    host, port = server.address.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(20)]
    try:
        for one in silent:
            one.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for one in silent:
            assert answer_on(one)[:2] == (200, "close")
        began = time.monotonic()
        for _ in range(5):
            assert requests.get(f"{server.address}/health/live", timeout=30).status_code == 200
        assert time.monotonic() - began < 5
    finally:
        for one in silent:
            one.close()
