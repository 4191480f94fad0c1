"""Measures the speed of serving over HTTP against alternatives: `python -m benchmarks.serving [--images FOLDER]`.

Compares serving with a bare loop of decoding and ONNX Runtime in one process, `mlflow models serve` of the same
registered version, and a plain Flask view around `keras.Model.predict`. Servers run on the first core, the client on
the second. They take turns in each round, serving between two loops, so that other load of the machine affects all
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
    """Return the figures of each contender, a dictionary for each round."""
    servers = {"serving": stack.enter_context(serving())}
    if "mlflow" not in asked.without:
        servers["mlflow models serve"] = stack.enter_context(mlflow_serve())
    if "keras" not in asked.without:
        servers["Flask and keras.predict"] = stack.enter_context(plain_flask(stage))
    figures: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in range(-1, asked.rounds):  # the first is a warm-up
        measured: list[tuple[str, dict[str, Any]]] = [("bare loop", _loop(stage, asked.seconds))]
        for name, server in servers.items():
            for connections in CONNECTIONS:
                before = server.cpu_seconds()
                result = send(stage, server, connections, asked.seconds)
                if result["failures"]:
                    raise SystemExit(f"{name} failed: {result['failures']}")
                result["cpu"] = 1000 * (server.cpu_seconds() - before) / result["answers"]
                if name == "serving":  # between two loops, so that a change of clock rate affects them as well
                    loops = measured[-1][1], _loop(stage, asked.seconds)
                    result |= {
                        f"{key} ratio": result[key] / statistics.mean(loop[key] for loop in loops) for key in _RATIOS
                    }
                    measured += [(f"{name}, {connections}", result), ("bare loop", loops[1])]
                else:
                    measured.append((f"{name}, {connections}", result))
        if turn >= 0:
            for name, result in measured:
                figures[name].append(result)
            print(
                f"round {turn + 1}: " + ", ".join(f"{name} {result['rate']:.1f}/s" for name, result in measured),
                flush=True,
            )
    waiting = requests.get(f"{servers['serving'].address}/status", timeout=10).json()["journal"]["waiting"]
    print(f"{waiting} of serving's predictions wait in its journal")
    return figures


def table(figures: dict[str, list[dict[str, Any]]]) -> str:
    """Return the medians over the rounds, and the ratios that have targets, as Markdown."""
    lines = [
        "| what | p50 ms | p95 ms | p99 ms | images/s | CPU ms an image |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rounds in figures.items():
        cells = [statistics.median(result[key] for result in rounds) for key in ("p50", "p95", "p99", "rate", "cpu")]
        lines.append(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    lines += ["", "| ratio, median of rounds (lowest to highest) | found | aim |", "| --- | --- | --- |"]
    rivals = _best(figures, "mlflow models serve", "rate")
    ratios = [
        [result["p50 ratio"] for result in figures["serving, 1"]],
        _best(figures, "serving", "rate ratio"),
        [rate / rival for rate, rival in zip(_best(figures, "serving", "rate"), rivals, strict=False)],
    ]
    for (what, aim, way), values in zip(_AIMS, ratios, strict=True):
        if values:
            lines.append(
                f"| {what} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) | {way} {aim} |"
            )
    busy = 1 / statistics.median(result["cpu ratio"] for result in figures["serving, 32"])
    lines.append(f"| CPU time an image, bare loop's to serving's at 32 connections | {busy:.2f} | |")
    return "\n".join(lines)


def _best(figures: dict[str, list[dict[str, Any]]], contender: str, key: str) -> list[float]:
    """Return a contender's highest value of each round, over the numbers of connections."""
    of_each = [rounds for name, rounds in figures.items() if name.startswith(f"{contender},")]
    return [max(result[key] for result in turn) for turn in zip(*of_each, strict=True)]


def _loop(stage: Stage, seconds: float) -> dict[str, Any]:
    command = ["benchmarks.serving_baselines", "loop", str(stage.package), str(stage.images), str(seconds)]
    return _figures(SERVERS_CORE, command)


def send(stage: Stage, server: Server, connections: int, seconds: float, **more: Any) -> dict[str, Any]:
    """Send the stage's images by `benchmarks.load` and return its figures; `more` are further entries of its job."""
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
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
