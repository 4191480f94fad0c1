"""How fast training and scoring are beside what others would use: `python -m benchmarks.speed [FOLDER] --rounds 7`.

Times training steps against the same network in PyTorch (if it is installed), the exported graph through `score()`
against a bare ONNX Runtime session and against its int8 form (where TensorFlow is, which writes the graph), and how
long a step waits for its batch; and tells which share of what the device multiplies at best a training reaches, and its
memory. All in turns, several rounds; printed are medians, and ratios as medians of the rounds' own, which a busy
machine changes least. Rounds of the same code on the same machine are kept in `var/benchmarks/`: only those that are
missing are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import result_cache
from benchmarks.folders import ImageSet, read_pixels, read_set
from benchmarks.timed import (
    MANY,
    ExportedGraph,
    FastestProduct,
    Figures,
    NotTimed,
    OurTraining,
    PeerTrainingSteps,
    Turn,
)
from pipelines.config.cpu import usable_cores
from pipelines.config.project import ModelSettings
from pipelines.errors import InspectlineError
from pipelines.images.preprocess import prepare

IMAGES = 64
# What a figure depends on; a change of any of these files or packages measures anew.
CODE = (
    *(f"pipelines/images/{name}.py" for name in ("preprocess", "tiling")),
    *(f"pipelines/tasks/anomaly/{name}/*.py" for name in ("restoration", "synthetic", "fitting")),
    *(f"pipelines/tasks/anomaly/{name}.py" for name in ("predict", "export", "onnx_graph", "quantise")),
    *(f"benchmarks/{name}.py" for name in ("timed", "torch_peer", "speed", "arithmetic")),
)
PACKAGES = ("keras", "tensorflow", "jax", "onnxruntime", "torch")


def main(arguments: list[str]) -> int:
    """Measure what the arguments ask for, print the table, and return the exit status."""
    asked = _parser().parse_args(arguments)
    try:
        told, rounds = measure(asked)
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    found, used = figures(told, rounds), arithmetic(told, rounds)
    print()
    print(table(found))
    print()
    print(sentence(used))
    if asked.json:
        written = {**told, "figures": found, "arithmetic": used, "rounds": rounds}
        asked.json.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return 0


def measure(asked: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Figures]]]:
    """Return what was timed, and the seconds of each round by what was timed. Every round is kept once it is done."""
    files = read_set(asked.folder) if asked.folder else None
    size = {} if asked.input_size is None else {"input_size": asked.input_size}
    model = ModelSettings(preset=asked.preset, batch_size=asked.batch_size, **size)
    options = {name: getattr(model, name) for name in ("preset", "input_size", "batch_size", "resize")}
    options |= {"steps": asked.steps, "compiled": asked.compile}
    options["threads"] = asked.threads or usable_cores()
    path = _path(files, options)
    told, rounds = (None if asked.anew else result_cache.read(path, _usable)) or ({}, [])
    rounds = rounds[: asked.rounds]
    if rounds:
        print(f"{len(rounds)} of {asked.rounds} rounds: measured before", flush=True)
    if len(rounds) == asked.rounds:
        return told, rounds
    raw = list(_read(files))
    images = np.concatenate([prepare(one, model.input_size, model.resize) for one in raw])
    # Which precision is faster may be measured otherwise now: the rest is timed in the one that it began in.
    job = {**options, "images": images, "raw": raw[:1], "precision": told.get("precision")}
    with ExitStack() as held:
        turns, found = _begin(job, held)
        now = {**options, **found}
        if rounds and now != told:
            print(f"{path}: something was timed there that cannot be now, or the reverse; measured anew", flush=True)
            rounds = []
        while len(rounds) < asked.rounds:
            rounds.append({name: turn.round() for name, turn in turns.items()})
            result_cache.write(path, {"told": now, "rounds": rounds})
            print(f"round {len(rounds)} of {asked.rounds}: {_pace(rounds[-1], now)}", flush=True)
    return now, rounds


def figures(told: dict[str, Any], rounds: list[dict[str, Figures]]) -> list[dict[str, Any]]:
    """Return each figure: `what`, `value` (milliseconds), `beside` (None if there is nothing) and `ratio`."""

    def compared(what: str, one: tuple[str, str], other: tuple[str, str]) -> dict[str, Any]:
        values = [1000 * round[one[0]][one[1]] for round in rounds]
        if other[0] not in rounds[0]:
            return {"what": what, "value": float(np.median(values)), "beside": None, "ratio": None}
        beside = [1000 * round[other[0]][other[1]] for round in rounds]
        ratio = float(np.median(np.divide(values, beside)))
        return {"what": what, "value": float(np.median(values)), "beside": float(np.median(beside)), "ratio": ratio}

    step = f"a training step of {told['batch_size']} images in {told['precision']}"
    trained = [
        compared(f"{step}, beside PyTorch's", ("ours", "step"), ("peer", "step")),
        compared("the same in processor time", ("ours", "processor"), ("peer", "processor")),
        compared(f"{step} and on the stream, beside one on ready batches", ("ours", "streamed"), ("ours", "step")),
        compared("waiting for a batch, beside the whole step", ("ours", "waited"), ("ours", "streamed")),
        compared("making a batch, beside the whole step", ("ours", "made"), ("ours", "streamed")),
    ]
    if not told["graph"]:
        return trained
    return trained + [
        compared(
            f"{what}, an image of {count} at a time, beside {other}",
            ("graph", f"{one}_{count}"),
            ("graph", f"{two}_{count}"),
        )
        for what, one, two, other in (
            ("score()", "score", "bare", "a bare session's"),
            ("score() in int8", "int8_score", "score", "float32's"),
        )
        for count in (1, MANY)
    ]


def arithmetic(told: dict[str, Any], rounds: list[dict[str, Figures]]) -> dict[str, Any]:
    """Return the `operations` of a step for one image, the operations a second that a training does (`rate`) and the
    fastest product of matrices (`highest`), the `share` of that, and `memory` (bytes) and whose it is (`of`).
    """
    rates = np.array([told["operations"] * told["batch_size"] / one["ours"]["streamed"] for one in rounds])
    highest = np.array([one["product"]["rate"] for one in rounds])
    of = "device" if "device" in rounds[0]["ours"] else "process"
    return {
        "operations": told["operations"],
        "precision": told["precision"],
        "rate": float(np.median(rates)),
        "highest": float(np.median(highest)),
        "share": float(np.median(rates / highest)),
        "of": of,
        "memory": max(one["ours"][of] for one in rounds),
    }


def sentence(used: dict[str, Any]) -> str:
    """Return for people what `arithmetic` returns."""
    dtype = used["precision"].removeprefix("mixed_")
    return (
        f"A training step does {used['operations'] / 1e9:.2f} GFLOP for an image, {used['rate'] / 1e12:.3g} TFLOP/s:"
        f" {used['share']:.0%} of the {used['highest'] / 1e12:.3g} TFLOP/s that the fastest product of matrices in"
        f" {dtype} reaches here. It used {used['memory'] / 1e9:.2f} GB of the {used['of']}'s memory at most."
    )


def table(found: list[dict[str, Any]]) -> str:
    """Return figures as a Markdown table."""
    lines = ["| what | ms | beside, ms | ratio |", "| --- | --- | --- | --- |"]
    for one in found:
        cells = [one["what"], *(_number(one[name]) for name in ("value", "beside", "ratio"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _path(files: ImageSet | None, options: dict[str, Any]) -> Path:
    """Return where rounds are kept."""
    images = files.digest() if files else ["demo", result_cache.code("include/demo_images.py")]
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    depends = [
        images,
        options,
        backend,
        result_cache.code(*CODE),
        result_cache.versions(*PACKAGES),
        result_cache.machine(),
    ]
    return result_cache.path_of(*depends, prefix="speed-")


def _usable(found: Any) -> tuple[dict[str, Any], list[dict[str, Figures]]]:
    """Return what was told and the rounds, of which a table can be made."""
    table(figures(found["told"], found["rounds"]))
    sentence(arithmetic(found["told"], found["rounds"]))
    return found["told"], found["rounds"]


def _begin(job: dict[str, Any], held: ExitStack) -> tuple[dict[str, Turn], dict[str, Any]]:
    """Start what is timed, until `held` ends it; return it by name, and what it tells of itself."""
    turns: dict[str, Turn] = {}

    def begin(name: str, kind: Any) -> dict[str, Any]:
        turns[name] = Turn(kind, job)
        held.callback(turns[name].end)
        return turns[name].told

    ours = begin("ours", OurTraining)
    job |= ours
    told = {"precision": ours["precision"], "operations": ours["operations"], "graph": False}
    begin("product", FastestProduct)
    for name, kind in (("peer", PeerTrainingSteps), ("graph", ExportedGraph)):
        try:
            told |= begin(name, kind)
        except NotTimed as error:
            print(error, flush=True)
    return turns, told


def _pace(one: dict[str, Figures], told: dict[str, Any]) -> str:
    paces = {name: one[name][step] for name, step in (("ours", "streamed"), ("peer", "step")) if name in one}
    parts = [f"{name} {told['batch_size'] / seconds:.1f} images/s" for name, seconds in paces.items()]
    if told["graph"]:
        parts.append(f"score() {1000 * one['graph']['score_1']:.1f} ms")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _read(files: ImageSet | None) -> Iterator[NDArray[np.uint8]]:
    """Yield training images of a set, or of the demo where there is none."""
    if files is None:
        from include.demo_images import draw

        for number in range(IMAGES):
            yield draw(0, number)[0]
        return
    for file in files.training[:IMAGES]:
        yield read_pixels(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a set in the layout of MVTec AD (the demo's images)")
    parser.add_argument("--preset", choices=["small", "base", "large"], default="small")
    parser.add_argument("--input-size", type=int, help="pixels a side (128, 256 or 512 by the preset)")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step (16)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed (7)")
    parser.add_argument("--steps", type=int, default=10, help="steps, and runs of the graph, a round (10)")
    parser.add_argument("--threads", type=int, help="threads of each (as many as there are processors)")
    parser.add_argument("--compile", action="store_true", help="compile the peer by torch.compile")
    parser.add_argument("--anew", action="store_true", help="time all rounds, those too that were kept")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
