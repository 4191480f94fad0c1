"""What clients that never finish a request cost the others: `python -m benchmarks.slow_clients [--connections 500]`.

Half of them send a part of a request's head, half a part of an image; each connection is renewed when the server closes
it, or after some ten seconds. Meanwhile cameras predict, and `/health/live` is asked over new connections. Measured
without such clients and with them, in turns, on the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from benchmarks.environment import Stage
from benchmarks.load import percentile
from benchmarks.servers import CLIENTS_CORE, Server, serving
from pipelines.config.settings import REPOSITORY

UNFINISHED = (
    b"GET /health/live HTTP/1.1\r\nHost: x\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n\x89PNG",
)
_CAMERAS = 4
_HELD_SECONDS = (5.0, 15.0)
_PAUSE_SECONDS = 0.1
_SETTLE_SECONDS = 6.0
_AIMS = (("/health/live, slowest", "at most 100 ms"), ("/predict p95, to that without", "at most 2"))


def main(arguments: list[str]) -> int:
    """Measure, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.slow_clients", description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=500, help="that never finish a request")
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--attack", help=argparse.SUPPRESS)  # the process that holds them, at this address
    asked = parser.parse_args(arguments)
    if asked.attack:
        asyncio.run(hold(asked.attack, asked.connections, asked.seconds))
        return 0
    rows: list[tuple[str, dict[str, Any]]] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-slow-"))
        stage = stack.enter_context(Stage(Path(folder)).set())
        server = stack.enter_context(serving())
        measure(stage, server, 0, 3.0)  # to warm up
        for _ in range(asked.rounds):
            for connections in (0, asked.connections):
                rows.append((f"{connections} unfinished", measure(stage, server, connections, asked.seconds)))
    print(table(rows))
    return 0


def measure(stage: Stage, server: Server, connections: int, seconds: float) -> dict[str, Any]:
    """Return latencies in milliseconds beside so many unfinished requests: `p50`, `p95` and `rate` of `/predict`,
    `live p50` and `live max` of `/health/live`, and what failed.
    """
    pinned = ["taskset", "-c", str(CLIENTS_CORE), sys.executable, "-m"]
    attack = [*pinned, "benchmarks.slow_clients", "--attack", server.address, "--connections", str(connections)]
    attacker = subprocess.Popen([*attack, "--seconds", str(seconds + _SETTLE_SECONDS + 2)], cwd=REPOSITORY)
    time.sleep(_SETTLE_SECONDS)  # all of them are connected
    job = {
        "address": server.address, "path": server.path, "body": server.body, "seconds": seconds,
        "connections": _CAMERAS, "folder": str(stage.images), "tensors": str(stage.tensors),
    }  # fmt: skip
    path = stage.folder / "slow-clients.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    over, live, failures = threading.Event(), [], []

    def ask() -> None:
        while not over.wait(_PAUSE_SECONDS):
            began = time.perf_counter()
            try:
                requests.get(f"{server.address}/health/live", timeout=60).raise_for_status()
            except requests.RequestException as error:
                failures.append(f"/health/live: {type(error).__name__}")
            live.append(1000 * (time.perf_counter() - began))

    asking = threading.Thread(target=ask)
    asking.start()
    done = subprocess.run([*pinned, "benchmarks.load", str(path)], cwd=REPOSITORY, capture_output=True, check=True)
    over.set()
    asking.join()
    attacker.wait(timeout=60)
    answered: dict[str, Any] = json.loads(done.stdout)
    live.sort()
    times = {"live p50": percentile(live, 0.5), "live p99": percentile(live, 0.99), "live max": live[-1]}
    return answered | times | {"failures": answered["failures"] + failures[:3]}


async def hold(address: str, connections: int, seconds: float) -> None:
    """Keep so many requests unfinished for so many seconds."""
    host, _, port = address.removeprefix("http://").partition(":")
    until = time.monotonic() + seconds

    async def keep(sent: bytes) -> None:
        while time.monotonic() < until:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(sent)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(random.uniform(*_HELD_SECONDS), until - time.monotonic())):
                        await reader.read()
                writer.close()
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)

    await asyncio.gather(*(keep(UNFINISHED[number % len(UNFINISHED)]) for number in range(connections)))


def table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    """Return the measurements as a Markdown table, then how they stand to the aims."""
    lines = [
        "| clients | /predict p50 (ms) | p95 | a second | /health/live p50 (ms) | p99 | slowest | failures |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows:
        lines.append(
            f"| {name} | {row.get('p50', float('nan')):.1f} | {row.get('p95', float('nan')):.1f} | {row['rate']:.1f} "
            f"| {row['live p50']:.1f} | {row['live p99']:.1f} | {row['live max']:.1f} | {row['failures']} |"
        )
    without, beside = ([row for _, row in rows[start::2]] for start in (0, 1))
    ratio = max(row.get("p95", float("inf")) for row in beside) / max(row.get("p95", 0.0) for row in without)
    slowest = max(row["live max"] for row in beside)
    values = (f"{slowest:.1f} ms", f"{ratio:.2f}")
    lines += ["", *(f"{name}: {value} ({aim})" for (name, aim), value in zip(_AIMS, values, strict=True))]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
