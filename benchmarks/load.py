"""Sends images over many connections and prints the times as JSON: `python -m benchmarks.load <job.json>`.

Runs in its own process on its own core, with plain keep-alive sockets, so that it does not limit what is measured.
"""

from __future__ import annotations

import base64
import json
import math
import os
import socket
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

_NUMBERS = count(os.getpid() << 32)


def distinct(jpeg: bytes) -> bytes:
    """Return the JPEG with a unique comment, so that no cache holds it."""
    comment = f"{next(_NUMBERS):024d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def percentile(values: list[float], share: float) -> float:
    """Return the quantile at `share` (0 to 1) of the sorted `values`."""
    return values[min(len(values) - 1, int(share * len(values)))]


def load(job: dict[str, Any]) -> dict[str, Any]:
    """Send images from `job["folder"]` over `connections` to `address`'s `path` for `seconds`, or `most` of them.

    `body` is `image` to send the files or `tensor` to send `job["tensors"]` unchanged. Returns `rate` (answers per
    second), `p50`, `p95`, `p99` (milliseconds), `answers` and `failures`.
    """
    host, _, port = job["address"].removeprefix("http://").partition(":")
    if job["body"] == "image":
        payloads = [path.read_bytes() for path in sorted(Path(job["folder"]).glob("*.jpg"))]
        kind = "image/jpeg"
    else:
        payloads = [base64.b64decode(text) for text in json.loads(Path(job["tensors"]).read_text("utf-8"))]
        kind = "application/json"
    head = f"POST {job['path']} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: ".encode()
    times: list[float] = []
    failures: list[str] = []
    began = time.perf_counter()
    until, sent, most = began + job["seconds"], count(), job.get("most", math.inf)

    def connection(number: int) -> None:
        with socket.create_connection((host, int(port)), timeout=60) as connected:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            place = number
            while time.perf_counter() < until and next(sent) < most:
                place += 1
                body = payloads[place % len(payloads)]
                body = distinct(body) if kind == "image/jpeg" else body
                message = b"".join((head, str(len(body)).encode(), b"\r\n\r\n", body))
                start = time.perf_counter()
                connected.sendall(message)
                status, answer = _answer(connected)
                if status == 200:
                    times.append(time.perf_counter() - start)
                else:
                    failures.append(f"{status} {answer[:200]!r}")

    threads = [threading.Thread(target=connection, args=(number * 7,)) for number in range(job["connections"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - began
    times.sort()
    if not times:
        return {"rate": 0.0, "answers": 0, "failures": failures[:3]}
    quantiles = {f"p{share}": 1000 * percentile(times, share / 100) for share in (50, 95, 99)}
    return {"rate": len(times) / taken, "answers": len(times), "failures": failures[:3], **quantiles}


def _answer(connected: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body of a response with Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connected)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += _some(connected)
    return int(head[9:12]), body


def _some(connected: socket.socket) -> bytes:
    data = connected.recv(1 << 16)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


if __name__ == "__main__":
    print(json.dumps(load(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
