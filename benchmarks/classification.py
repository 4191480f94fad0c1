"""Measures classification on real images: `python -m benchmarks.classification FOLDER… --minutes 15 --seeds 3`.

Trains on `train/<class>` of each set, holds 15 % of it back as validation, and judges once on `test/<class>`, beside
the most frequent class, the nearest neighbour in pixels, and a plain logistic head on the same backbone. Results of the
same code on the same files are read from `var/benchmarks/`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import result_cache
from benchmarks.classification_measure import METHODS, OURS, TIMELESS, read_set
from pipelines.errors import InspectlineError
from pipelines.training.step_process import run_module

CODE = (
    "benchmarks/classification_measure.py",
    "pipelines/backbones/*.py",
    "pipelines/evaluation/*.py",
    "pipelines/images/*.py",
    "pipelines/tasks/classification/*.py",
    "pipelines/tasks/classification/fitting/*.py",
)
COLUMNS = {
    "accuracy": "accuracy",
    "top_3_accuracy": "top 3",
    "macro_f1": "macro F1",
    "calibration_error": "ECE",
    "coverage": "coverage (90 %)",
    "set_size": "set size",
}


def main(arguments: list[str]) -> int:
    """Measure what the arguments ask for, print the table, and return the exit status."""
    asked = _parser().parse_args(arguments)
    results: list[dict[str, Any]] = []
    try:
        for folder in asked.folders:
            results += _measure_set(folder, asked)
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    print(table(results))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def table(results: list[dict[str, Any]]) -> str:
    """Return results as a Markdown table: every seed, then mean and standard deviation over the seeds."""
    names = ["set", "method", "seed", *COLUMNS.values(), "95 % interval of accuracy", "seconds", "ms an image"]
    lines = [_row(names), _row(["---"] * len(names))]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["set"], result["method"]), []).append(result)
    for (name, method), group in groups.items():
        for result in group:
            cells = [_number(result["metrics"].get(column, {}).get("value")) for column in COLUMNS]
            accuracy = result["metrics"]["accuracy"]
            times = [f"{result['seconds']:.0f}", _number(result.get("milliseconds"))]
            interval = f"{accuracy['low']:.3f}–{accuracy['high']:.3f}"
            lines.append(_row([name, method, str(result["seed"]), *cells, interval, *times]))
        if len(group) > 1:
            cells = [_mean([result["metrics"].get(column, {}).get("value") for result in group]) for column in COLUMNS]
            seconds = f"{np.mean([result['seconds'] for result in group]):.0f}"
            lines.append(_row([f"**{name}**", method, "mean", *cells, "", seconds, ""]))
    return "\n".join(lines)


def _measure_set(folder: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    images, results = read_set(folder), []
    files = images.digest()
    for method in [OURS, *([] if asked.no_baselines else [name for name in METHODS if name != OURS])]:
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            job = {
                "folder": str(folder.resolve()),
                "method": method,
                "seed": seed,
                "minutes": asked.minutes,
                "backbone": asked.backbone,
                "open_layers": asked.open_layers,
                "input_size": asked.input_size,
            }
            results.append({"set": images.name, **job, **_measured(job, files)})
            if method in TIMELESS:
                break
    return results


def _measured(job: dict[str, Any], files: str) -> dict[str, Any]:
    """Return the results of a job, from the cache if it was measured before."""
    key = {name: value for name, value in job.items() if name != "folder"}
    path = result_cache.path_of(key, files, result_cache.code(*CODE))
    title = f"{Path(job['folder']).name}, {job['method']}, seed {job['seed']}"

    def usable(kept: Any) -> dict[str, Any]:
        table([{"set": "", **job, **kept}])
        return dict(kept)

    if before := result_cache.read(path, usable):
        print(f"{title}: measured before", flush=True)
        return before
    print(f"{title}: {job['minutes']:g} min", flush=True)
    result = run_module(
        "benchmarks.classification_measure", {"job": job}, lambda line: print(f"    {line}", flush=True)
    )
    result_cache.write(path, result)
    print(f"    accuracy {result['metrics']['accuracy']['value']:.3f}", flush=True)
    return result


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 1.5 else f"{value:.2f}"


def _mean(values: list[float | None]) -> str:
    present = [value for value in values if value is not None]
    return f"{_number(float(np.mean(present)))} ± {_number(float(np.std(present)))}" if present else "–"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classification", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="sets with train/<class>/ and test/<class>/")
    parser.add_argument("--minutes", type=float, default=15, help="time of each training (15)")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings of each (3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of the seeds (0)")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="pretrained network (efficientnet_lite0)")
    parser.add_argument("--open-layers", type=int, default=16, help="convolutions to fine-tune; 0: the head alone (16)")
    parser.add_argument("--input-size", type=int, default=224, help="side of the network's input in pixels (224)")
    parser.add_argument("--no-baselines", action="store_true", help="leave the baselines out")
    parser.add_argument("--json", type=Path, help="write all metrics to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
