"""How long queries over all samples of a project take: `python -m benchmarks.catalogue`.

Fills a catalogue with 5,000, 20,000 and 80,000 samples of a project, nine tenths good, and prints the wall time of
each query, and by how much more of it the largest takes for each sample than the smallest: about 1 where time grows
with the number of samples, 16 where it grows with its square.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.local_s3 import local_s3

_SIDES = ("training", "validation", "test")


def main(arguments: list[str]) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue", description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[5_000, 20_000, 80_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", help="URL of an empty PostgreSQL database (default: SQLite in a new folder)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="catalogue-") as folder:
        (Path(folder) / "s3" / "inspectline").mkdir(parents=True)
        projects = Path(folder) / "projects"
        projects.mkdir()
        for count in options.samples:
            (projects / f"line{count}.yaml").write_text("bucket: inspectline\n", encoding="utf-8")
        os.environ |= {
            "INSPECTLINE_DATABASE_URL": options.database or f"sqlite:///{folder}/catalogue.db",
            "INSPECTLINE_PROJECTS": str(projects),
        }
        with local_s3(Path(folder) / "s3"):
            _measure(options.samples, options.rounds)
    return 0


def _measure(counts: list[int], rounds: int) -> None:
    from pipelines.catalogue import migrate

    migrate()
    figures: dict[str, list[float]] = {}
    for count in counts:
        project = f"line{count}"
        _fill(project, count)  # measured at once, before the database has statistics of these rows
        for name, query in _queries(project).items():
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                query()
                times.append(time.perf_counter() - began)
            figures.setdefault(name, []).append(statistics.median(times))
    heads = " | ".join(f"{count:,}, s" for count in counts)
    print(f"| what | {heads} | growth a sample |\n|{' --- |' * (len(counts) + 2)}")
    for name, seconds in figures.items():
        growth = (seconds[-1] / counts[-1]) / (seconds[0] / counts[0])
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in seconds)} | {growth:.1f} |")


def _queries(project: str) -> dict[str, Callable[[], Any]]:
    from pipelines.catalogue import connect
    from pipelines.catalogue.samples import labelled_samples, new_images
    from pipelines.datasets.versions import freeze
    from pipelines.ingest import report
    from pipelines.ingest.commit import side_counts

    def on_connection(query: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            with connect() as connection:
                return query(connection, project)

        return call

    return {
        "`freeze`": lambda: freeze(project),
        "`report` of an ingest without images": lambda: report(project, "run", []),
        "`labelled_samples`": on_connection(labelled_samples),
        "`side_counts`": on_connection(side_counts),
        "`new_images`": on_connection(new_images),
    }


def _fill(project: str, count: int) -> None:
    """Enter `count` samples, each a group of its own, with an annotation, but for one in fifty."""
    from pipelines.catalogue import transaction
    from pipelines.catalogue.schema import annotations, groups, samples

    hashes = [hashlib.sha256(f"{project} {number}".encode()).hexdigest() for number in range(count)]
    fixed: dict[str, Any] = {"project": project, "format": "PNG", "width": 640, "height": 480, "mode": "RGB"}
    fixed |= {"size_bytes": 60_000, "descriptors": {"brightness": 0.5, "contrast": 0.1, "sharpness": 0.3}}
    with transaction() as connection:
        connection.execute(
            groups.insert(),
            [
                {"project": project, "group_key": sha256, "side": _SIDES[number % 3], "origin": "hashed"}
                for number, sha256 in enumerate(hashes)
            ],
        )
        connection.execute(
            samples.insert(),
            [
                fixed
                | {"sha256": sha256, "group_key": sha256}
                | {"key": f"{project}/samples/{sha256[:2]}/{sha256}.png", "source_key": f"{project}/inbox/{number}.png"}
                for number, sha256 in enumerate(hashes)
            ],
        )
        connection.execute(
            annotations.insert(),
            [
                {"project": project, "sha256": sha256, "label": "good" if number % 10 else "anomaly", "origin": "inbox"}
                for number, sha256 in enumerate(hashes)
                if number % 50
            ],
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
