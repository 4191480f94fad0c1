"""How fast serving is, over real HTTP, beside what else there is: `python -m benchmarks.serving [--images FOLDER]`.

Serving, a bare loop of decoding and ONNX Runtime in one process, `mlflow models serve` of the same registered version,
and a plain Flask view around `keras.Model.predict`. All of them have the first core to themselves, the client the
second. They take turns, round by round, and serving between two loops, so that what else the machine does hits all
alike; no image is sent twice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from benchmarks.environment import Stage
from benchmarks.servers import CLIENTS_CORE, SERVERS_CORE, Server, mlflow_serve, plain_flask, serving
from pipelines.config.settings import REPOSITORY

CONNECTIONS = (1, 8, 32)
_RATIOS = ("p50", "rate", "cpu")
_AIMS = (
    ("p50 of one connection, to the bare loop's", 1.3, "at most"),
    ("rate at saturation, to the bare loop's", 0.85, "at least"),
    ("rate at saturation, to `mlflow models serve`", 5.0, "at least"),
)


def main(arguments: list[str]) -> int:
    """Measure, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help="a folder of JPEGs (default: drawn battery cells)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement of a round")
    parser.add_argument("--without", nargs="*", default=(), choices=("mlflow", "keras"), help="leave a rival out")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark-serving-") as folder, ExitStack() as stack:
        stage = stack.enter_context(Stage(Path(folder), asked.images).set())
        figures = measure(stage, stack, asked)
    print(table(figures))
    return 0


def measure(stage: Stage, stack: ExitStack, asked: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each contender, round by round."""
    servers = {"serving": stack.enter_context(serving())}
    if "mlflow" not in asked.without:
        servers["mlflow models serve"] = stack.enter_context(mlflow_serve())
    if "keras" not in asked.without:
        servers["Flask and keras.predict"] = stack.enter_context(plain_flask(stage))
    figures: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in range(-1, asked.rounds):  # the first is to warm up
        found: list[tuple[str, dict[str, Any]]] = [("bare loop", _loop(stage, asked.seconds))]
        for name, server in servers.items():
            for connections in CONNECTIONS:
                before = server.cpu_seconds()
                told = send(stage, server, connections, asked.seconds)
                if told["failures"]:
                    raise SystemExit(f"{name} failed: {told['failures']}")
                told["cpu"] = 1000 * (server.cpu_seconds() - before) / told["answers"]
                if name == "serving":  # between two loops: a processor that changes its pace changes theirs, too
                    loops = found[-1][1], _loop(stage, asked.seconds)
                    told |= {f"{key} ratio": told[key] / statistics.mean(one[key] for one in loops) for key in _RATIOS}
                    found += [(f"{name}, {connections}", told), ("bare loop", loops[1])]
                else:
                    found.append((f"{name}, {connections}", told))
        if turn >= 0:
            for name, told in found:
                figures[name].append(told)
            print(f"round {turn + 1}: " + ", ".join(f"{name} {told['rate']:.1f}/s" for name, told in found), flush=True)
    waiting = requests.get(f"{servers['serving'].address}/status", timeout=10).json()["journal"]["waiting"]
    print(f"{waiting} of serving's predictions wait in its journal")
    return figures


def table(figures: dict[str, list[dict[str, Any]]]) -> str:
    """Return the medians over the rounds, and the ratios that were aimed at, as Markdown."""
    lines = [
        "| what | p50 ms | p95 ms | p99 ms | images/s | CPU ms an image |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rounds in figures.items():
        cells = [statistics.median(one[key] for one in rounds) for key in ("p50", "p95", "p99", "rate", "cpu")]
        lines.append(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    lines += ["", "| ratio, median of rounds (lowest to highest) | found | aim |", "| --- | --- | --- |"]
    rivals = _best(figures, "mlflow models serve", "rate")
    ratios = [
        [one["p50 ratio"] for one in figures["serving, 1"]],
        _best(figures, "serving", "rate ratio"),
        [one / other for one, other in zip(_best(figures, "serving", "rate"), rivals, strict=False)],
    ]
    for (what, aim, way), found in zip(_AIMS, ratios, strict=True):
        if found:
            lines.append(
                f"| {what} | {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}) | {way} {aim} |"
            )
    busy = 1 / statistics.median(one["cpu ratio"] for one in figures["serving, 32"])
    lines.append(f"| CPU time an image, bare loop's to serving's at 32 connections | {busy:.2f} | |")
    return "\n".join(lines)


def _best(figures: dict[str, list[dict[str, Any]]], contender: str, key: str) -> list[float]:
    """Return a contender's highest value of each round, over the numbers of connections."""
    of_each = [rounds for name, rounds in figures.items() if name.startswith(f"{contender},")]
    return [max(one[key] for one in turn) for turn in zip(*of_each, strict=True)]


def _loop(stage: Stage, seconds: float) -> dict[str, Any]:
    command = ["benchmarks.serving_baselines", "loop", str(stage.package), str(stage.images), str(seconds)]
    return _figures(SERVERS_CORE, command)


def send(stage: Stage, server: Server, connections: int, seconds: float, **more: Any) -> dict[str, Any]:
    """Return what `benchmarks.load` tells of sending the stage's images; `more` are further entries of its job."""
    job = {
        "address": server.address,
        "path": server.path,
        "body": server.body,
        "connections": connections,
        "seconds": seconds,
        "folder": str(stage.images),
        "tensors": str(stage.tensors),
        **more,
    }
    path = stage.folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return _figures(CLIENTS_CORE, ["benchmarks.load", str(path)])


def _figures(core: int, command: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-m", *command],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
