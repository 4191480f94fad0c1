"""How well defects are found on real images: `python -m benchmarks.accuracy FOLDER… --minutes 10 --seeds 3`.

Trains on `train/good` of each set alone, sets the threshold on a quarter of it that is held back, and judges once on
`test/`. Beside it, in the same run, the baselines. What was measured once, by the same code on the same files, is read
from `var/benchmarks/`, so that an interrupted run goes on where it stopped.
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

# What a figure depends on; a change of any of these files measures anew.
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
# Neither the seed nor the time changes what these find.
TIMELESS = ("brightness", "PCA")

COLUMNS: list[tuple[str, Callable[[dict[str, Any]], float | None]]] = [
    ("AUROC", lambda one: one["auroc"]["value"]),
    ("AP", lambda one: one["average_precision"]["value"]),
    ("F1", lambda one: one["f1"]["value"]),
    ("recall", lambda one: one["recall"]["value"]),
    ("promised", lambda one: one["promised_fpr"]),
    ("FPR", lambda one: one["fpr"]["value"]),
    ("FPR allowed", lambda one: one["allowed_fpr"]),
    ("pixel AUROC", lambda one: one["pixel_auroc"] and one["pixel_auroc"]["value"]),
    ("AUPRO", lambda one: one["aupro"] and one["aupro"]["value"]),
    # Times are never twice the same, so that a run by steps does without them.
    ("images/s", lambda one: one["minutes"] and one.get("images_per_second")),
    ("ms/image", lambda one: one["minutes"] and one.get("milliseconds_an_image")),
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

    A promise is broken where more alarms were raised than in 39 of 40 cases if the good test images came from where the
    training's come from; `drift` is what the drift report says about that.
    """
    names = ["set", "method", "seed", *(name for name, _ in COLUMNS), "95 % interval of AUROC", "promise", "drift"]
    lines = [_row(names), _row(["---"] * len(names))]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in results:
        groups.setdefault((one["set"], one["method"]), []).append(one)
    for (name, method), group in groups.items():
        for one in group:
            low, high = one["auroc"]["low"], one["auroc"]["high"]
            promise = "kept" if one["promise_kept"] else "broken"
            cells = [_number(column(one)) for _, column in COLUMNS]
            lines.append(_row([name, method, str(one["seed"]), *cells, f"{low:.3f}–{high:.3f}", promise, _drift(one)]))
        if len(group) > 1:
            cells = [_mean([column(one) for one in group]) for _, column in COLUMNS]
            promise = f"{sum(one['promise_kept'] for one in group)} of {len(group)}"
            lines.append(_row([f"**{name}**", method, "mean", *cells, "", promise, ""]))
        for kind in sorted(group[0]["auroc_by_type"]) if len(group[0]["auroc_by_type"]) > 1 else []:
            cells = [_mean([one["auroc_by_type"][kind]["value"] for one in group])] + [""] * (len(COLUMNS) - 1)
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
    """Return where a page of pictures is to be written, if it is asked for."""
    if folder is None or method != OURS:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder.resolve() / name)


def _measured(job: dict[str, Any], files: str) -> dict[str, Any]:
    """Return the figures of a job: those that were kept, where it was done before."""
    code = OUR_CODE if job["method"] == OURS else BASELINE_CODE
    told = {name: value for name, value in job.items() if name not in ("folder", "page")}
    if job["method"] in TIMELESS:
        told |= {"minutes": 0, "steps": 0}
    path = result_cache.path_of(told, files, result_cache.code(*code))
    title = f"{Path(job['folder']).name}, {job['method']}, seed {job['seed']}"

    def usable(found: Any) -> dict[str, Any]:
        table([{"set": "", **job, **found}])
        return dict(found)

    drawn = not job["page"] or Path(job["page"]).is_file()
    if drawn and (before := result_cache.read(path, usable)):
        print(f"{title}: measured before", flush=True)
        return before
    print(f"{title}: {job['steps']} steps" if job["steps"] else f"{title}: {job['minutes']:g} min", flush=True)
    result = run_module("benchmarks.measure", {"job": job}, lambda line: print(f"    {line}", flush=True))
    result_cache.write(path, result)
    print(f"    AUROC {result['auroc']['value']:.3f}", flush=True)
    return result


def _drift(one: dict[str, Any]) -> str:
    """Return in words whether the good test images drifted from those that the threshold was set on, and how far the
    column that moved most did.
    """
    found = one["drift"]
    if found is None:
        return ""
    if found["drifted"] is None:
        return "too few images"
    what = ", ".join(found["what"]) if found["drifted"] else "none"
    return f"{what} ({found['distance']:.2f} of {found['threshold']:.2f})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 1.5 else f"{value:.1f}"


def _mean(values: list[float | None]) -> str:
    found = [value for value in values if value is not None]
    return f"{_number(float(np.mean(found)))} ± {_number(float(np.std(found)))}" if found else "–"


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
