"""Clients that send a byte now and then hold neither a thread nor the others."""

import socket
import threading
import time

import pytest

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


def test_next_request_when_it_comes_with_the_rest_of_a_refused_one_then_answered(server: Server, registry: Registry):
    server.start()
    host, _, port = server.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"GET /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        told = client.recv(1 << 16)
        client.sendall(b"0123456789GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"alive" not in told:
            told += client.recv(1 << 16)
    assert told.startswith(b"HTTP/1.1 405")
