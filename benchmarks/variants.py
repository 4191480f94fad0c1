"""Compares variants of a trained network: `python -m benchmarks.variants FOLDER --minutes 10 --annotated 60`.

Trains as `benchmarks.accuracy` does and evaluates on the test images the exported graph, its int8 form, the network
with the reconstruction score (`model.score: reconstruction`), and two fine-tuned networks: with some annotated
anomalies, sampled from those of `test/` that have a mask, and without. The fine-tuned networks, and the network that
they start from, are evaluated on the remaining test images.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.folders import BadSet, ImageSet, TestImage, read_mask, read_pixels, read_set
from benchmarks.measure import detector, fit_settings, judge, open_graph, training_tiles
from pipelines.config.model_settings import AnomalySettings
from pipelines.errors import InspectlineError
from pipelines.images.preprocess import prepare
from pipelines.tasks.anomaly.training_set import marked_tiles

if TYPE_CHECKING:
    from pipelines.tasks.anomaly.fitting.batches import Selection
    from pipelines.tasks.anomaly.fitting.state import FitSettings, Fitted
    from pipelines.tasks.anomaly.quantise import Trial
    from pipelines.tasks.anomaly.synthetic.real_defects import Annotated


@dataclass(frozen=True)
class _Session:
    """The inputs that all variants share.

    Attributes:
        images: the set.
        held_back: good training images held back for the threshold.
        model: settings of the network.
        tiles: the tiles to train on.
        rate: false-positive rate to promise.
        folder: folder for temporary files.
    """

    images: ImageSet
    held_back: list[Path]
    model: AnomalySettings
    tiles: Selection
    rate: float
    folder: Path

    def figures(self, graph: Path, test: list[TestImage]) -> dict[str, Any]:
        """Return the metrics of an exported graph on test images."""
        detect = detector(open_graph(graph, self.model))
        result = judge(replace(self.images, test=test), detect, self.held_back, self.rate)
        return {"judged": len(test)} | {
            name: value for name, value in result.items() if name not in ("validation", "scores")
        }

    def export(self, fitted: Fitted, name: str, score: str = "fused") -> Path:
        """Export a network with the `fused` or the `reconstruction` score."""
        from pipelines.tasks.anomaly.export import write_graph
        from pipelines.tasks.anomaly.restoration.inference_model import inspection_model

        return write_graph(inspection_model(fitted.network, score), self.folder / f"{name}.onnx")

    def quantised(self, graph: Path) -> tuple[Path, Trial]:
        """Quantise a graph to int8, and return its path and its trial on the images held back."""
        from pipelines.tasks.anomaly.quantise import attempt, quantise

        path = quantise(graph, self.tiles, self.folder / "int8.onnx")
        return path, attempt(graph, path, training_tiles(self.held_back, self.model).images)


def main(arguments: list[str]) -> int:
    """Measure what the arguments ask for, print the table, and return the exit status."""
    asked = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        results = measure(asked)
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    print(table(results))
    print()
    print(results["trial"])
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Return `variants`, the metrics of each by name, and `trial`, the export's verdict on int8.

    Raises BadSet, BadImage, TrainingFailed.
    """
    from pipelines.tasks.anomaly.restoration.network import named_weights

    images = read_set(asked.folder, asked.types)
    fitted, held_back = images.split(asked.seed)
    taught = choose(images, asked.annotated, asked.seed)
    rest = [image for image in images.test if image not in taught]
    model = AnomalySettings(preset=asked.preset)
    settings = fit_settings(model, asked.seed, asked.minutes, asked.steps)
    with tempfile.TemporaryDirectory(prefix="variants-") as folder:
        session = _Session(images, held_back, model, training_tiles(fitted, model), asked.rate, Path(folder))
        champion = _fit(session, settings, "training")
        graph = session.export(champion, "champion")
        int8, trial = session.quantised(graph)
        variants = {
            "float32": session.figures(graph, images.test) | _took(champion),
            "int8": session.figures(int8, images.test),
            "reconstruction error alone": session.figures(
                session.export(champion, "restored", "reconstruction"), images.test
            ),
        }
        if taught:
            variants["float32, other test images"] = session.figures(graph, rest)
            shorter = _fine_tuning(replace(settings, precision=champion.precision))
            weights = named_weights(champion.network)
            lessons = {f"fine-tuned with {len(taught)} annotated": annotated_tiles(taught, model), "without": None}
            for name, annotated in lessons.items():
                tuned = _fit(session, shorter, name, annotated=annotated, weights=weights)
                variants[name] = session.figures(session.export(tuned, "tuned"), rest) | _took(tuned)
    return {"variants": variants, "trial": str(trial), "taught": len(taught)}


def choose(images: ImageSet, count: int, seed: int) -> list[TestImage]:
    """Return `count` of the anomalous test images that have a mask. Raises BadSet if there are not enough."""
    masked = [image for image in images.test if image.masks]
    if count >= len(masked):
        raise BadSet(f"{images.name}: has {len(masked)} anomalous test images with a mask, too few to annotate {count}")
    chosen = np.random.default_rng([seed, 78]).choice(len(masked), count, replace=False)
    return [masked[place] for place in sorted(chosen)]


def annotated_tiles(taught: list[TestImage], model: AnomalySettings) -> Annotated:
    """Return the annotated anomalies for training: the tiles in which the mask marks something."""
    from pipelines.tasks.anomaly.synthetic.real_defects import Annotated

    located, masks = [], []
    for image in taught:
        pixels = read_pixels(image.file)
        mask = read_mask(image, *pixels.shape[:2])
        assert mask is not None
        tiles, marks = marked_tiles(prepare(pixels, model.input_size, model.resize), mask, model)
        located.append(tiles)
        masks.append(marks)
    return Annotated(np.concatenate(located), np.concatenate(masks), np.empty((0, *located[0].shape[1:]), np.uint8))


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    names = [
        "variant",
        "images",
        "steps",
        "seconds",
        "AUROC",
        "95 % interval",
        "AP",
        "recall",
        "FPR",
        "pixel AUROC",
        "AUPRO",
    ]
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join(['---'] * len(names))} |"]
    for name, result in results["variants"].items():
        auroc = result["auroc"]
        interval = f"{auroc['low']:.3f}–{auroc['high']:.3f}"
        figures = [result[key] for key in ("average_precision", "recall", "fpr", "pixel_auroc", "aupro")]
        numbers = ["–" if figure is None else f"{figure['value']:.3f}" for figure in figures]
        time = [f"{result['steps']}", f"{result['seconds']:.0f}"] if "steps" in result else ["", ""]
        cells = [name, str(result["judged"]), *time, f"{auroc['value']:.4f}", interval, *numbers]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _fit(session: _Session, settings: FitSettings, name: str, **more: Any) -> Fitted:
    from pipelines.tasks.anomaly.fitting.trainer import fit

    print(f"{session.images.name}, {name}", flush=True)
    return fit(session.tiles, settings, on_progress=lambda progress: print(f"    {progress}", flush=True), **more)


def _fine_tuning(settings: FitSettings) -> FitSettings:
    """Return the settings of a fine-tuning, as in the project's own trainings."""
    from pipelines.tasks.anomaly.train import FINE_TUNING_TIME, fine_tuning

    return replace(fine_tuning(settings), steps=settings.steps and math.ceil(settings.steps * FINE_TUNING_TIME))


def _took(fitted: Fitted) -> dict[str, Any]:
    return {"steps": fitted.steps, "seconds": fitted.seconds}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=__doc__)
    parser.add_argument("folder", type=Path, help="a set in MVTec AD's layout, from 16 training images up")
    parser.add_argument("--minutes", type=float, default=10, help="time of the training (10); fine-tuning has .3 of it")
    parser.add_argument("--steps", type=int, help="steps of the training instead; fine-tuning has .3 of them")
    parser.add_argument("--annotated", type=int, default=60, help="how many anomalies to learn from (60); 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", choices=["small", "base", "large"], default="small")
    parser.add_argument("--rate", type=float, default=0.01, help="the false-positive rate to promise (0.01)")
    parser.add_argument("--types", nargs="+", help="judge these defect types only")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
