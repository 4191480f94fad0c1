"""Trains on a set once and evaluates on its test images: `python -m benchmarks.measure <job.json> <result.json>`.

`benchmarks.accuracy` starts a process for each training, so that no training inherits memory or threads of another.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import BASELINES
from benchmarks.folders import ImageSet, read_mask, read_pixels, read_set
from benchmarks.promise_check import drift
from monitoring.drift.report import FalseAlarms, Observed
from pipelines.config.model_settings import AnomalySettings
from pipelines.evaluation import metrics
from pipelines.evaluation.intervals import clopper_pearson
from pipelines.evaluation.metrics import Confusion
from pipelines.evaluation.pixel_metrics import PixelCounts, measure_pixels
from pipelines.images.descriptors import DESCRIPTORS, describe
from pipelines.images.preprocess import prepare, restore_map
from pipelines.images.tiling import parts
from pipelines.tasks.anomaly.threshold import conformal
from pipelines.training.step_process import main

if TYPE_CHECKING:
    from pipelines.tasks.anomaly.fitting.batches import Selection
    from pipelines.tasks.anomaly.fitting.state import FitSettings
    from pipelines.tasks.anomaly.onnx_graph import ScoringGraph

OURS = "Inspectline"
CHUNK = 32
THREADS = 2


@dataclass(frozen=True)
class Judgement:
    """The output of a detector for an image.

    Attributes:
        score: anomaly score.
        error_map: error map at the image's own size, [H, W]; None for a detector without maps.
        embedding: embedding, [d]; None for a detector without embeddings.
        descriptors: the image's `DESCRIPTORS` by name; None together with `embedding`.
    """

    score: float
    error_map: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    descriptors: dict[str, float] | None = None


Detector = Callable[[list[Path]], Iterator[Judgement]]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train `method` on a set with a seed and evaluate it.

    `job` has `folder`, `types` (or None), `method`, `preset`, `seed`, `minutes` or `steps`, `rate`, the promised
    false-positive rate, and optionally `page`, the path of a sheet of example images of our own method. Returns the
    metrics as plain JSON, including the score of each test image. Raises BadSet, BadImage.
    """
    images = read_set(Path(job["folder"]), job["types"])
    fitted, held_back = images.split(job["seed"])
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        trainer = _ours if job["method"] == OURS else _baseline
        detector, facts = trainer(job, fitted, Path(folder))
        return {**facts, "fitted_images": len(fitted), **judge(images, detector, held_back, job["rate"])}


def judge(images: ImageSet, detector: Detector, held_back: list[Path], rate: float) -> dict[str, Any]:
    """Compute the threshold from the scores of the images held back, and return all metrics of the test images, for all
    defects and by type.
    """
    # Maps are counted one at a time: hundreds of them, at the images' own size, would fill the memory.
    validation = [replace(result, error_map=None) for result in detector(held_back)]
    threshold = conformal([result.score for result in validation], rate)
    tested, pixels = [], PixelCounts()
    for image, result in zip(images.test, detector([image.file for image in images.test]), strict=True):
        tested.append(replace(result, error_map=None))
        if result.error_map is not None:
            mask = read_mask(image, *result.error_map.shape)
            if mask is not None:
                pixels.add(result.error_map, mask)
    scores = np.array([result.score for result in tested])
    types = np.array([image.type for image in images.test])
    good = scores[types == "good"]
    verdicts = Confusion.at(threshold.value, good, scores[types != "good"])
    alarms = FalseAlarms.of(
        verdicts.false_positive, verdicts.good, threshold.promised, n=threshold.n, rank=threshold.rank
    )
    located = measure_pixels(pixels) if pixels.usable else None
    return {
        "auroc": metrics.auroc(good, scores[types != "good"]).to_json(),
        "average_precision": metrics.average_precision(good, scores[types != "good"]).to_json(),
        "auroc_by_type": {
            kind: metrics.auroc(good, scores[types == kind]).to_json() for kind in sorted(set(types) - {"good"})
        },
        "threshold": threshold.value,
        "f1": metrics.f1(verdicts).to_json(),
        "recall": metrics.recall(verdicts).to_json(),
        "promised_fpr": threshold.promised,
        "fpr": clopper_pearson(alarms.found, alarms.images).to_json(),
        "allowed_fpr": alarms.allowed / alarms.images,
        "promise_kept": not alarms.broken,
        "drift": _drift(validation, [result for result, kind in zip(tested, types, strict=True) if kind == "good"]),
        "pixel_auroc": located.pixel_auroc.to_json() if located else None,
        "aupro": located.aupro.to_json() if located else None,
        "validation": [result.score for result in validation],
        "scores": {"type": types.tolist(), "score": scores.tolist()},
    }


def _drift(validation: list[Judgement], good: list[Judgement]) -> dict[str, Any] | None:
    """Return the drift report of the good test images; None for a detector without embeddings."""
    if any(result.embedding is None for result in validation):
        return None
    return drift(_observed(validation), _observed(good))


def _observed(images: list[Judgement]) -> Observed:
    return Observed(
        np.array([result.score for result in images]),
        np.stack([result.embedding for result in images if result.embedding is not None]),
        np.array(
            [[result.descriptors[name] for name in DESCRIPTORS] for result in images if result.descriptors is not None]
        ),
        DESCRIPTORS,
    )


def fit_settings(model: AnomalySettings, seed: int, minutes: float | None, steps: int | None) -> FitSettings:
    """Return the settings of a training by `steps`, if given, else by `minutes`."""
    from pipelines.tasks.anomaly.fitting.precision import FLOAT32
    from pipelines.tasks.anomaly.fitting.state import FitSettings

    settings = FitSettings(model.preset, model.input_size, model.batch_size, seed=seed)
    if steps:
        # Fixed precision and no time limit, so that the training does not depend on measured times.
        return replace(settings, steps=steps, seconds=math.inf, precision=FLOAT32)
    assert minutes is not None
    return replace(settings, seconds=60 * minutes)


def open_graph(path: Path, model: AnomalySettings) -> ScoringGraph:
    """Open an exported graph with the number of threads that the benchmark uses."""
    from pipelines.tasks.anomaly.onnx_graph import ScoringGraph

    return ScoringGraph(path, model.input_size, model.resize, threads=THREADS)


def training_tiles(files: list[Path], model: AnomalySettings) -> Selection:
    """Return the images as tiles prepared for the network of these settings."""
    from pipelines.tasks.anomaly.fitting.batches import Selection

    sizes = []

    def read(file: Path) -> NDArray[np.uint8]:
        image = read_pixels(file)
        sizes.append(image.shape[:2])
        return image

    prepared = _prepared(map(read, files), model)
    pixels = np.concatenate(prepared)
    return Selection(
        pixels, np.arange(len(pixels)), parts(np.array([len(tiles) for tiles in prepared]), np.array(sizes))
    )


def detector(graph: ScoringGraph) -> Detector:
    """Return a detector that scores images with an exported graph."""
    from pipelines.tasks.anomaly.predict import predict

    def detect(wanted: list[Path]) -> Iterator[Judgement]:
        for start in range(0, len(wanted), CHUNK):
            chunk = [read_pixels(file) for file in wanted[start : start + CHUNK]]
            for image, prediction in zip(chunk, predict(graph, chunk), strict=True):
                error_map = restore_map(prediction.error_map, image.shape[0], image.shape[1], graph.resize)
                yield Judgement(prediction.score, error_map, prediction.embedding, describe(image))

    return detect


def _ours(job: dict[str, Any], files: list[Path], folder: Path) -> tuple[Detector, dict[str, Any]]:
    from benchmarks.pictures import page
    from pipelines.tasks.anomaly.export import write_graph
    from pipelines.tasks.anomaly.fitting.trainer import fit
    from pipelines.tasks.anomaly.predict import predict
    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model

    model = AnomalySettings(preset=job["preset"])
    tiles = training_tiles(files, model)
    settings = fit_settings(model, job["seed"], job["minutes"], job["steps"])
    fitted = fit(tiles, settings, on_progress=lambda progress: print(progress, flush=True))
    path = write_graph(inspection_model(fitted.network), folder / "model.onnx")
    graph = open_graph(path, model)
    if job.get("page"):
        page(read_set(Path(job["folder"]), job["types"]), fitted.network, graph).save(job["page"])

    def milliseconds() -> float:
        first = read_pixels(files[0])
        times = []
        for _ in range(60):
            start = time.perf_counter()
            predict(graph, [first])
            times.append(time.perf_counter() - start)
        return 1000 * float(np.median(times[10:]))

    return detector(graph), {
        "steps": fitted.steps,
        "seconds": fitted.seconds,
        "images_per_second": fitted.images_per_second,
        "precision": fitted.precision,
        "milliseconds_an_image": milliseconds(),
    }


def _baseline(job: dict[str, Any], files: list[Path], folder: Path) -> tuple[Detector, dict[str, Any]]:
    # Baselines take the whole image, resized to a square, as is usual for them.
    model = AnomalySettings(preset=job["preset"], resize="fit")

    baseline = BASELINES[job["method"]]()
    limit = {"steps": job["steps"]} if job["steps"] else {"seconds": 60 * job["minutes"]}
    baseline.fit(np.concatenate(_prepared(map(read_pixels, files), model)), job["seed"], **limit)

    def detect(wanted: list[Path]) -> Iterator[Judgement]:
        for start in range(0, len(wanted), CHUNK):
            chunk = [read_pixels(file) for file in wanted[start : start + CHUNK]]
            scores, maps = baseline.judge(np.concatenate(_prepared(chunk, model)))
            for place, image in enumerate(chunk):
                height, width, _ = image.shape
                error_map = None if maps is None else restore_map(maps[place], height, width, model.resize)
                yield Judgement(float(scores[place]), error_map)

    return detect, {}


def _prepared(images: Iterable[NDArray[np.uint8]], model: AnomalySettings) -> list[NDArray[np.uint8]]:
    return [prepare(image, model.input_size, model.resize) for image in images]


if __name__ == "__main__":
    main(measure)
