"""Exports the trained network as an ONNX graph.

Normalising and scoring go into the graph, and the graph is compared with the network on the validation images
before anybody may use it. Where the project asks for int8, that is tried then, and taken if it passes
(`pipelines.tasks.anomaly.quantise`). Works on the TensorFlow backend, whichever backend trained the network.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.config.project import load_project
from pipelines.errors import ExportMismatch
from pipelines.registry.package import GRAPH, WEIGHTS
from pipelines.steps import ModelPackage, PackRef, Run, TrainedModel
from pipelines.storage.files import file_digest
from pipelines.storage.s3 import Storage, split_uri
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.predict import predict
from pipelines.tasks.anomaly.training_set import anomaly_settings, select
from pipelines.training.checkpoints import Checkpoint

if TYPE_CHECKING:
    import keras

    from pipelines.tasks.anomaly.quantise import Trial

# Of the spread of the scores of good images: far below anything that a threshold could tell apart.
TOLERANCE = 1e-3
COMPARED = 512


def export(run: Run, pack: PackRef, trained: TrainedModel) -> ModelPackage:
    """Export the trained network, compare both, and upload `model.onnx` beside `model.keras`.

    Where int8 was asked for, a note says why it was taken or not. Raises ExportMismatch, BadPackage, StorageError.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model, load_network
    from pipelines.tasks.anomaly.synthetic.sampling import spread
    from pipelines.tasks.anomaly.train import say

    bucket, key = split_uri(trained.weights_uri)
    storage = Storage(bucket)
    prefix = key.removesuffix(f"/{WEIGHTS}")
    images = select(pack, "validation")
    if not len(images):
        images = select(pack, "training")
    rows = spread(len(images), COMPARED)
    settings, notes = anomaly_settings(run), []
    arithmetic: Literal["float32", "int8"] = "float32"
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        model = inspection_model(load_network(storage.download(key, Path(folder) / WEIGHTS)), settings.score)
        path = write_graph(model, Path(folder) / GRAPH)
        difference, tolerance = compare(model, path, images[rows])
        say(f"exported graph and network differ by {difference:.2e} of score at most; allowed are {tolerance:.2e}")
        if settings.export == "int8":
            quantised, trial = try_int8(path, pack, images[rows])
            notes.append(str(trial))
            say(notes[-1])
            if trial.passed:
                path, arithmetic = quantised.replace(path), "int8"
                # What rounding changes of the scores is no fault of whoever scores an image again.
                difference = trial.difference + difference
                tolerance = max(tolerance, difference)
        uri = storage.upload(path, f"{prefix}/{GRAPH}")
        digest = file_digest(path)
    # From here on nobody needs to take the training up again.
    Checkpoint.of(load_project(run.project).bucket, run).delete()
    return ModelPackage(
        package_uri=uri.removesuffix(f"/{GRAPH}"),
        notes=notes,
        onnx_sha256=digest,
        arithmetic=arithmetic,
        max_difference=difference,
        tolerance=tolerance,
    )


def write_graph(model: keras.Model, path: Path) -> Path:
    """Write an inspection model as ONNX, its batch size free, and return `path`."""
    import keras

    signature = [keras.InputSpec(shape=(None, *model.input_shape[1:]), dtype="uint8", name="image")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx asks numpy for names that are gone
        model.export(path, format="onnx", verbose=False, input_signature=signature)
    return path


def try_int8(path: Path, pack: PackRef, images: NDArray[np.uint8]) -> tuple[Path, Trial]:
    """Write the int8 graph beside the one at `path`, calibrated on the pack's training images, and return it with how
    it did on `images`.
    """
    from pipelines.tasks.anomaly.quantise import attempt, quantise

    quantised = quantise(path, select(pack, "training"), path.with_name("int8.onnx"))
    return quantised, attempt(path, quantised, images)


def compare(model: keras.Model, path: Path, images: NDArray[np.uint8]) -> tuple[float, float]:
    """Score `images` [n, S, S, 3] by the graph, through `score()`, and by the network.

    Returns the largest difference of scores, and the tolerance: a thousandth of the spread (5 % to 95 %) of the
    network's scores. Raises ExportMismatch if scores differ by more than that, or error maps by more than a
    thousandth of the largest error.
    """
    predictions = predict(ScoringGraph(path, images.shape[1], "fit"), images)
    parts = [model.predict_on_batch(images[start : start + 16]) for start in range(0, len(images), 16)]
    expected = np.concatenate([part["score"] for part in parts])
    maps = np.concatenate([part["error_map"] for part in parts])
    low, high = np.quantile(expected, (0.05, 0.95))
    tolerance = TOLERANCE * max(float(high - low), 0.01 * float(np.abs(expected).max()), 1e-6)
    difference = float(np.abs(expected - [prediction.score for prediction in predictions]).max())
    map_difference = max(
        float(np.abs(prediction.error_map - map_).max()) for prediction, map_ in zip(predictions, maps, strict=True)
    )
    if difference > tolerance or map_difference > TOLERANCE * max(float(maps.max()), 1e-6):
        raise ExportMismatch(
            f"the exported graph gives other scores than the network (by {difference:.2e}, allowed {tolerance:.2e}) or"
            f" other error maps (by {map_difference:.2e}): check the versions of keras, tf2onnx and onnxruntime"
        )
    return difference, tolerance
