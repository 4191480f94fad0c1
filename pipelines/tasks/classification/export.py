"""Exports the trained network as an ONNX graph, and compares both on the validation images.

Works on the TensorFlow backend, whichever backend trained the network.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.config.project import load_project
from pipelines.errors import ExportMismatch
from pipelines.registry.onnx_session import open_session
from pipelines.registry.package import GRAPH, WEIGHTS
from pipelines.steps import ModelPackage, PackRef, Run, TrainedModel
from pipelines.storage.files import file_digest
from pipelines.storage.s3 import Storage, split_uri
from pipelines.tasks.classification.predict import softmax
from pipelines.tasks.classification.run_data import labelled_images
from pipelines.tasks.classification.training_record import read_record
from pipelines.training.checkpoints import Checkpoint

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-3  # of a probability
COMPARED = 128


def export(run: Run, pack: PackRef, trained: TrainedModel) -> ModelPackage:
    """Export the trained network, compare both, and upload `model.onnx` beside `model.keras`.

    Raises:
        ExportMismatch: graph and network differ.
        StorageError: S3 failed.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    from pipelines.tasks.classification.train import say

    bucket, key = split_uri(trained.weights_uri)
    storage, prefix = Storage(bucket), key.removesuffix(f"/{WEIGHTS}")
    record, _ = read_record(trained.weights_uri.removesuffix(f"/{WEIGHTS}"))
    images = labelled_images(pack, "validation", record.classes)
    if not len(images):
        images = labelled_images(pack, "training", record.classes)
    compared = np.asarray(images.batch(np.arange(min(COMPARED, len(images)))))
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        network = keras.models.load_model(storage.download(key, Path(folder) / WEIGHTS))
        path = write_graph(network, Path(folder) / GRAPH)
        difference = largest_difference(network, path, compared)
        say(f"exported graph and network differ by {difference:.2e} of probability at most; allowed are {TOLERANCE:g}")
        if difference > TOLERANCE:
            raise ExportMismatch(
                f"{run.project}: the exported graph differs from the network by {difference:.3g} of probability, more"
                f" than {TOLERANCE:g}: check the versions of keras, tf2onnx and onnxruntime"
            )
        uri, digest = storage.upload(path, f"{prefix}/{GRAPH}"), file_digest(path)
    # From here on nobody needs to take the training up again.
    Checkpoint.of(load_project(run.project).bucket, run).delete()
    return ModelPackage(
        package_uri=uri.removesuffix(f"/{GRAPH}"),
        onnx_sha256=digest,
        max_difference=difference,
        tolerance=TOLERANCE,
    )


def write_graph(network: keras.Model, path: Path) -> Path:
    """Write a classifier as ONNX, taking `image` uint8 [N, S, S, 3] and giving `logits` and `embedding`."""
    import keras

    side = network.input_shape[1]
    image = keras.Input((side, side, 3), dtype="uint8", name="image")
    answer = network(keras.ops.cast(image, "float32"))
    model = keras.Model(image, {"logits": answer["logits"], "embedding": answer["embedding"]})
    signature = [keras.InputSpec(shape=(None, side, side, 3), dtype="uint8", name="image")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx asks numpy for names that are gone
        model.export(path, format="onnx", verbose=False, input_signature=signature)
    return path


def largest_difference(network: keras.Model, path: Path, images: NDArray[np.uint8]) -> float:
    """Return the largest difference of any probability between network and graph."""
    session, largest = open_session(path, threads=2), 0.0
    for start in range(0, len(images), 16):
        batch = images[start : start + 16]
        expected = np.asarray(network(batch.astype(np.float32), training=False)["logits"])
        (logits,) = session.run(["logits"], {"image": batch})
        largest = max(largest, float(np.abs(softmax(expected) - softmax(logits)).max()))
    return largest
