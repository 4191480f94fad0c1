"""How long one small object takes to S3: `python -m benchmarks.s3_put`. `quick_put` beside boto3, in turns in one run.

Starts an S3 server on this machine, and prints processor time and wall time an object, medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.local_s3 import local_s3

SIZE = 60_000  # bytes of an object, as a camera's small JPEG has


def main(arguments: list[str]) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3_put", description=__doc__.partition("\n")[0])
    parser.add_argument("--objects", type=int, default=200, help="objects a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="s3-put-") as folder:
        (Path(folder) / "bucket").mkdir()
        with local_s3(Path(folder)):
            _measure(options.objects, options.rounds)
    return 0


def _measure(objects: int, rounds: int) -> None:
    from pipelines.storage.s3 import Storage

    storage, data = Storage("bucket"), os.urandom(SIZE)
    ways: dict[str, Callable[[str], object]] = {
        "quick_put": lambda key: storage.put_small(key, data, "image/jpeg"),
        "boto3": lambda key: storage.put(key, data, "image/jpeg"),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first warms up
        for name, put in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            for place in range(objects):
                put(f"{name}/{number}-{place}.jpg")
            if number:
                spent = (time.process_time() - cpu, time.perf_counter() - wall)
                figures[name].append((1000 * spent[0] / objects, 1000 * spent[1] / objects))
    medians = {name: [statistics.median(times) for times in zip(*rows, strict=True)] for name, rows in figures.items()}
    print("| way | processor ms | wall ms |\n| --- | --- | --- |")
    for name, (cpu, wall) in medians.items():
        print(f"| {name} | {cpu:.2f} | {wall:.2f} |")
    ratio = medians["quick_put"][0] / medians["boto3"][0]
    print(f"quick_put takes {ratio:.2f} of boto3's processor time")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
