"""Measures detection accuracy on real images: `python -m benchmarks.accuracy FOLDER… --minutes 10 --seeds 3`.

Trains on `train/good` of each set only, computes the threshold from a quarter of it that is held back, and evaluates
once on `test/`; the baselines are measured in the same run. Results of the same code on the same files are read from
`var/benchmarks/`, so that an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import result_cache
from benchmarks.baselines import BASELINES
from benchmarks.folders import read_set
from benchmarks.measure import OURS
from pipelines.errors import InspectlineError
from pipelines.training.step_process import run_module

# The files that results depend on; a change of any of them invalidates the cached results.
JUDGING_CODE = (
    "benchmarks/measure.py",
    "benchmarks/folders.py",
    "benchmarks/promise_check.py",
    "monitoring/drift/report.py",
    "monitoring/drift/thresholds.py",
    "pipelines/config/project.py",
    "pipelines/evaluation/*.py",
    "pipelines/images/*.py",
    "pipelines/tasks/anomaly/threshold.py",
)
OUR_CODE = (
    *JUDGING_CODE,
    *(f"pipelines/tasks/anomaly/{name}/*.py" for name in ("restoration", "synthetic", "fitting")),
    *(f"pipelines/tasks/anomaly/{name}.py" for name in ("predict", "onnx_graph", "export")),
)
BASELINE_CODE = (*JUDGING_CODE, "benchmarks/baselines.py")
# Methods whose results depend neither on the seed nor on the time.
TIMELESS = ("brightness", "PCA")

COLUMNS: list[tuple[str, Callable[[dict[str, Any]], float | None]]] = [
    ("AUROC", lambda result: result["auroc"]["value"]),
    ("AP", lambda result: result["average_precision"]["value"]),
    ("F1", lambda result: result["f1"]["value"]),
    ("recall", lambda result: result["recall"]["value"]),
    ("promised", lambda result: result["promised_fpr"]),
    ("FPR", lambda result: result["fpr"]["value"]),
    ("FPR allowed", lambda result: result["allowed_fpr"]),
    ("pixel AUROC", lambda result: result["pixel_auroc"] and result["pixel_auroc"]["value"]),
    ("AUPRO", lambda result: result["aupro"] and result["aupro"]["value"]),
    # Left out of runs by steps, whose output is reproducible.
    ("images/s", lambda result: result["minutes"] and result.get("images_per_second")),
    ("ms/image", lambda result: result["minutes"] and result.get("milliseconds_an_image")),
]


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
    """Return results as a Markdown table: every seed, then mean and spread (standard deviation) over the seeds.

    A promise is broken if there are more false alarms than in 39 of 40 cases under the hypothesis that the good test
    images have the distribution of the training images; `drift` is the drift report's verdict on that hypothesis.
    """
    names = ["set", "method", "seed", *(name for name, _ in COLUMNS), "95 % interval of AUROC", "promise", "drift"]
    lines = [_row(names), _row(["---"] * len(names))]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["set"], result["method"]), []).append(result)
    for (name, method), group in groups.items():
        for result in group:
            low, high = result["auroc"]["low"], result["auroc"]["high"]
            promise = "kept" if result["promise_kept"] else "broken"
            cells = [_number(column(result)) for _, column in COLUMNS]
            lines.append(
                _row([name, method, str(result["seed"]), *cells, f"{low:.3f}–{high:.3f}", promise, _drift(result)])
            )
        if len(group) > 1:
            cells = [_mean([column(result) for result in group]) for _, column in COLUMNS]
            promise = f"{sum(result['promise_kept'] for result in group)} of {len(group)}"
            lines.append(_row([f"**{name}**", method, "mean", *cells, "", promise, ""]))
        for kind in sorted(group[0]["auroc_by_type"]) if len(group[0]["auroc_by_type"]) > 1 else []:
            cells = [_mean([result["auroc_by_type"][kind]["value"] for result in group])] + [""] * (len(COLUMNS) - 1)
            lines.append(_row([f"{name}, {kind}", method, "mean", *cells, "", "", ""]))
    return "\n".join(lines)


def _measure_set(folder: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    images = read_set(folder, asked.types)
    files = images.digest()
    results = []
    for method in [OURS, *([] if asked.no_baselines else BASELINES)]:
        for seed in range(asked.seeds):
            job = {
                "folder": str(folder.resolve()),
                "types": asked.types,
                "method": method,
                "preset": asked.preset,
                "seed": asked.first_seed + seed,
                "minutes": None if asked.steps else asked.minutes,
                "steps": asked.steps,
                "rate": asked.rate,
                "page": _page(asked.pictures, f"{images.name}-{asked.first_seed + seed}.png", method),
            }
            results.append({"set": images.name, **job, **_measured(job, files)})
            if method in TIMELESS:
                break
    return results


def _page(folder: Path | None, name: str, method: str) -> str | None:
    """Return the path of the sheet of example images, if it is asked for."""
    if folder is None or method != OURS:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder.resolve() / name)


def _measured(job: dict[str, Any], files: str) -> dict[str, Any]:
    """Return the results of a job, from the cache if it was measured before."""
    code = OUR_CODE if job["method"] == OURS else BASELINE_CODE
    key = {name: value for name, value in job.items() if name not in ("folder", "page")}
    if job["method"] in TIMELESS:
        key |= {"minutes": 0, "steps": 0}
    path = result_cache.path_of(key, files, result_cache.code(*code))
    title = f"{Path(job['folder']).name}, {job['method']}, seed {job['seed']}"

    def usable(kept: Any) -> dict[str, Any]:
        table([{"set": "", **job, **kept}])
        return dict(kept)

    drawn = not job["page"] or Path(job["page"]).is_file()
    if drawn and (before := result_cache.read(path, usable)):
        print(f"{title}: measured before", flush=True)
        return before
    print(f"{title}: {job['steps']} steps" if job["steps"] else f"{title}: {job['minutes']:g} min", flush=True)
    result = run_module("benchmarks.measure", {"job": job}, lambda line: print(f"    {line}", flush=True))
    result_cache.write(path, result)
    print(f"    AUROC {result['auroc']['value']:.3f}", flush=True)
    return result


def _drift(result: dict[str, Any]) -> str:
    """Return in words whether the good test images drifted from those that the threshold was computed from, and the
    distance of the column that drifted most.
    """
    drift = result["drift"]
    if drift is None:
        return ""
    if drift["drifted"] is None:
        return "too few images"
    what = ", ".join(drift["what"]) if drift["drifted"] else "none"
    return f"{what} ({drift['distance']:.2f} of {drift['threshold']:.2f})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 1.5 else f"{value:.1f}"


def _mean(values: list[float | None]) -> str:
    present = [value for value in values if value is not None]
    return f"{_number(float(np.mean(present)))} ± {_number(float(np.std(present)))}" if present else "–"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="sets in MVTec AD's layout, from 16 training images up")
    parser.add_argument("--minutes", type=float, default=10, help="time of each training (10)")
    parser.add_argument("--steps", type=int, help="steps of each training instead: on a CPU, two runs print the same")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings of each (3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of the seeds (0)")
    parser.add_argument("--preset", choices=["small", "base", "large"], default="small")
    parser.add_argument("--rate", type=float, default=0.01, help="the false-positive rate to promise (0.01)")
    parser.add_argument("--types", nargs="+", help="judge these defect types only")
    parser.add_argument("--no-baselines", action="store_true", help="leave the baselines out")
    parser.add_argument("--pictures", type=Path, help="write a page of pictures of each training to this folder")
    parser.add_argument("--json", type=Path, help="write all figures, scores included, to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
