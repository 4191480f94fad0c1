"""Clients that begin a request and never finish it, however many: others are answered as if they were not there."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import requests

from benchmarks.slow_clients import hold
from tests.conftest import wait_until
from tests.pipelines.packages import good_image
from tests.serving.conftest import Registry, Server, encoded

CONNECTIONS = 200


@contextmanager
def held(server: Server, seconds: float) -> Iterator[None]:
    """Keep unfinished requests open while the block runs, and renew each that the server gives up."""
    holding = threading.Thread(target=lambda: asyncio.run(hold(server.address, CONNECTIONS, seconds)))
    holding.start()
    try:
        yield
    finally:
        holding.join()


def slowest(server: Server, seconds: float) -> tuple[float, float]:
    """Return the longest time that /health/live and /predict took, each over connections of their own, in seconds."""
    generator, until = np.random.default_rng(11), time.monotonic() + seconds
    live, predict = 0.0, 0.0
    while time.monotonic() < until:
        began = time.monotonic()
        assert requests.get(f"{server.address}/health/live", timeout=60).status_code == 200
        live = max(live, time.monotonic() - began)
        began = time.monotonic()
        image = {"file": encoded(good_image(generator))}
        assert requests.post(f"{server.address}/predict", files=image, timeout=60).status_code == 200
        predict = max(predict, time.monotonic() - began)
    return live, predict


@pytest.mark.parametrize("request_seconds", ["30", "1"], ids=["held", "given up and renewed"])
def test_requests_when_hundreds_are_never_finished_then_others_are_answered_at_once(
    server: Server, registry: Registry, request_seconds: str
):
    server.start(INSPECTLINE_REQUEST_SECONDS=request_seconds, INSPECTLINE_THREADS="4")
    server.until_version(registry.register())
    slowest(server, 2)
    with held(server, 8):
        time.sleep(1)  # all of them are connected
        live, predict = slowest(server, 5)
    assert live < 2
    assert predict < 2


def test_connections_when_more_than_the_server_keeps_then_new_ones_are_still_answered(server: Server):
    server.start()
    with held(server, 8), held(server, 8), held(server, 8), held(server, 8), held(server, 8), held(server, 8):
        time.sleep(2)  # 1,200, of which the oldest are closed
        for _ in range(5):
            assert requests.get(f"{server.address}/health/live", timeout=20).status_code == 200
    assert len(server.workers()) == 1


def test_large_bodies_when_nobody_has_logged_in_then_refused_before_they_arrive(server: Server):
    server.start(INSPECTLINE_AUTH="accounts", INSPECTLINE_RECEIVE_MB="1")
    address = server.address
    with held(server, 5):  # some of their bodies are announced, none of them takes room
        body = iter([b"x" * 1000])
        answers = [
            requests.post(f"{address}/predict", data=b"x" * 900_000, headers={"Content-Type": "image/png"}, timeout=20),
            requests.post(f"{address}/predict", data=body, headers={"Content-Type": "image/png"}, timeout=20),
        ]
    assert [answer.status_code for answer in answers] == [401, 401]
    wait_until(lambda: requests.get(f"{address}/health/live", timeout=5).status_code == 200, 10, "an answer")
