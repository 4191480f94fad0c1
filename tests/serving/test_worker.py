"""Gunicorn's worker as ours changes it, on real sockets and without a server around it."""

import os
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import _DEFER, TConn

from serving.worker import Log, Worker

CLIENTS = 8


@pytest.fixture
def ending() -> Iterator[Worker]:
    """A worker that has been told to end."""
    settings = Config()
    settings.set("threads", CLIENTS)
    worker = Worker(0, os.getpid(), [], None, 30, settings, Log(settings))
    worker.tpool = worker.get_thread_pool()
    worker.method_queue.init()
    worker.alive = False
    yield worker
    worker.tpool.shutdown()
    worker.method_queue.close()
    worker.tmp.close()


@pytest.mark.parametrize("told", [True, _DEFER], ids=["answered", "sent nothing"])
def test_finish_request_when_ending_then_clients_that_stay_connected_do_not_wait_for_each_other(ending, told: Any):
    pairs = [socket.socketpair() for _ in range(CLIENTS)]
    began = time.monotonic()
    for _, ours in pairs:
        answered: Future[Any] = Future()
        answered.set_result(told)
        ending.nr_conns += 1
        ending.finish_request(TConn(ending.cfg, ours, ("127.0.0.1", 1), ("127.0.0.1", 2)), answered)
    while ending.nr_conns and time.monotonic() - began < 30:
        if select.select([ending.method_queue.fileno()], [], [], 0.2)[0]:
            ending.method_queue.run_callbacks(None)
    # One after the other they would take 16 s.
    assert time.monotonic() - began < 8
    for client, _ in pairs:
        assert client.recv(1) == b""
        client.close()
