"""Measures the speed of training and scoring against references: `python -m benchmarks.speed [FOLDER] --rounds 7`.

Times training steps against the same network in PyTorch (if it is installed), the exported graph through `score()`
against a bare ONNX Runtime session and against its int8 form (if TensorFlow is installed, which writes the graph), and
the time that a step waits for its batch; computes the share of the device's highest rate that a training reaches, and
its peak memory. All are timed in turns, over several rounds. Prints medians, and ratios as medians of the ratios of
each round, which are robust on a busy machine. Rounds of the same code on the same machine are cached in
`var/benchmarks/`, and only missing rounds are timed.
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
from pipelines.config.model_settings import AnomalySettings
from pipelines.errors import InspectlineError
from pipelines.images.preprocess import prepare

IMAGES = 64
# The files and packages that results depend on; a change of any of them invalidates the cached rounds.
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
        facts, rounds = measure(asked)
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    rows, used = figures(facts, rounds), arithmetic(facts, rounds)
    print()
    print(table(rows))
    print()
    print(sentence(used))
    if asked.json:
        written = {**facts, "figures": rows, "arithmetic": used, "rounds": rounds}
        asked.json.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return 0


def measure(asked: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Figures]]]:
    """Return the facts about what was timed, and the figures of each round by name. Caches every complete round."""
    files = read_set(asked.folder) if asked.folder else None
    size = {} if asked.input_size is None else {"input_size": asked.input_size}
    model = AnomalySettings(preset=asked.preset, batch_size=asked.batch_size, **size)
    options = {name: getattr(model, name) for name in ("preset", "input_size", "batch_size", "resize")}
    options |= {"steps": asked.steps, "compiled": asked.compile}
    options["threads"] = asked.threads or usable_cores()
    path = _path(files, options)
    facts, rounds = (None if asked.anew else result_cache.read(path, _usable)) or ({}, [])
    rounds = rounds[: asked.rounds]
    if rounds:
        print(f"{len(rounds)} of {asked.rounds} rounds: measured before", flush=True)
    if len(rounds) == asked.rounds:
        return facts, rounds
    raw = list(_read(files))
    images = np.concatenate([prepare(image, model.input_size, model.resize) for image in raw])
    # The precision of the cached rounds is kept, even if the other one would be measured as faster now.
    job = {**options, "images": images, "raw": raw[:1], "precision": facts.get("precision")}
    with ExitStack() as held:
        turns, described = _begin(job, held)
        now = {**options, **described}
        if rounds and now != facts:
            print(f"{path}: something was timed there that cannot be now, or the reverse; measured anew", flush=True)
            rounds = []
        while len(rounds) < asked.rounds:
            rounds.append({name: turn.round() for name, turn in turns.items()})
            result_cache.write(path, {"told": now, "rounds": rounds})
            print(f"round {len(rounds)} of {asked.rounds}: {_pace(rounds[-1], now)}", flush=True)
    return now, rounds


def figures(facts: dict[str, Any], rounds: list[dict[str, Figures]]) -> list[dict[str, Any]]:
    """Return rows of `what`, `value` (milliseconds), `beside` (the reference, or None) and `ratio`."""

    def compared(what: str, measured: tuple[str, str], reference: tuple[str, str]) -> dict[str, Any]:
        values = [1000 * round[measured[0]][measured[1]] for round in rounds]
        if reference[0] not in rounds[0]:
            return {"what": what, "value": float(np.median(values)), "beside": None, "ratio": None}
        beside = [1000 * round[reference[0]][reference[1]] for round in rounds]
        ratio = float(np.median(np.divide(values, beside)))
        return {"what": what, "value": float(np.median(values)), "beside": float(np.median(beside)), "ratio": ratio}

    step = f"a training step of {facts['batch_size']} images in {facts['precision']}"
    trained = [
        compared(f"{step}, beside PyTorch's", ("ours", "step"), ("peer", "step")),
        compared("the same in processor time", ("ours", "processor"), ("peer", "processor")),
        compared(f"{step} and on the stream, beside one on ready batches", ("ours", "streamed"), ("ours", "step")),
        compared("waiting for a batch, beside the whole step", ("ours", "waited"), ("ours", "streamed")),
        compared("making a batch, beside the whole step", ("ours", "made"), ("ours", "streamed")),
    ]
    if not facts["graph"]:
        return trained
    return trained + [
        compared(
            f"{what}, an image of {count} at a time, beside {other}",
            ("graph", f"{numerator}_{count}"),
            ("graph", f"{denominator}_{count}"),
        )
        for what, numerator, denominator, other in (
            ("score()", "score", "bare", "a bare session's"),
            ("score() in int8", "int8_score", "score", "float32's"),
        )
        for count in (1, MANY)
    ]


def arithmetic(facts: dict[str, Any], rounds: list[dict[str, Figures]]) -> dict[str, Any]:
    """Return the `operations` of a step for one image, the operations per second of a training (`rate`) and of the
    fastest matrix product (`highest`), the `share` of the latter, and the peak `memory` (bytes) of `of`.
    """
    rates = np.array([facts["operations"] * facts["batch_size"] / measured["ours"]["streamed"] for measured in rounds])
    highest = np.array([measured["product"]["rate"] for measured in rounds])
    of = "device" if "device" in rounds[0]["ours"] else "process"
    return {
        "operations": facts["operations"],
        "precision": facts["precision"],
        "rate": float(np.median(rates)),
        "highest": float(np.median(highest)),
        "share": float(np.median(rates / highest)),
        "of": of,
        "memory": max(measured["ours"][of] for measured in rounds),
    }


def sentence(used: dict[str, Any]) -> str:
    """Return the result of `arithmetic` as a sentence."""
    dtype = used["precision"].removeprefix("mixed_")
    return (
        f"A training step does {used['operations'] / 1e9:.2f} GFLOP for an image, {used['rate'] / 1e12:.3g} TFLOP/s:"
        f" {used['share']:.0%} of the {used['highest'] / 1e12:.3g} TFLOP/s that the fastest product of matrices in"
        f" {dtype} reaches here. It used {used['memory'] / 1e9:.2f} GB of the {used['of']}'s memory at most."
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Return figures as a Markdown table."""
    lines = ["| what | ms | beside, ms | ratio |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = [row["what"], *(_number(row[name]) for name in ("value", "beside", "ratio"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _path(files: ImageSet | None, options: dict[str, Any]) -> Path:
    """Return the file in which rounds are cached."""
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


def _usable(kept: Any) -> tuple[dict[str, Any], list[dict[str, Figures]]]:
    """Return the facts and the rounds of a cached file, after checking that a table can be made of them."""
    table(figures(kept["told"], kept["rounds"]))
    sentence(arithmetic(kept["told"], kept["rounds"]))
    return kept["told"], kept["rounds"]


def _begin(job: dict[str, Any], held: ExitStack) -> tuple[dict[str, Turn], dict[str, Any]]:
    """Start the processes that are timed, until `held` ends them; return them by name, and the facts about them."""
    turns: dict[str, Turn] = {}

    def begin(name: str, kind: Any) -> dict[str, Any]:
        turns[name] = Turn(kind, job)
        held.callback(turns[name].end)
        return turns[name].facts

    ours = begin("ours", OurTraining)
    job |= ours
    facts = {"precision": ours["precision"], "operations": ours["operations"], "graph": False}
    begin("product", FastestProduct)
    for name, kind in (("peer", PeerTrainingSteps), ("graph", ExportedGraph)):
        try:
            facts |= begin(name, kind)
        except NotTimed as error:
            print(error, flush=True)
    return turns, facts


def _pace(measured: dict[str, Figures], facts: dict[str, Any]) -> str:
    paces = {name: measured[name][step] for name, step in (("ours", "streamed"), ("peer", "step")) if name in measured}
    parts = [f"{name} {facts['batch_size'] / seconds:.1f} images/s" for name, seconds in paces.items()]
    if facts["graph"]:
        parts.append(f"score() {1000 * measured['graph']['score_1']:.1f} ms")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _read(files: ImageSet | None) -> Iterator[NDArray[np.uint8]]:
    """Yield training images of a set, or of the demo without one."""
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
