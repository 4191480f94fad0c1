"""The only way from an image to a class: calibration, evaluation, gate, drift and serving call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadPackage
from pipelines.images.preprocess import PreparedImage, prepare
from pipelines.registry.package import GRAPH
from pipelines.tasks.classification.package import OUTPUTS, ClassificationPackage

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        probabilities: float32 [classes], calibrated, in the order of the card; their sum is 1.
        embedding: float32 [d].
        logits: float32 [classes], before the temperature.
    """

    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]
    logits: NDArray[np.float32]

    @property
    def best(self) -> int:
        """The place of the most probable class."""
        return int(np.argmax(self.probabilities))

    @property
    def certainty(self) -> float:
        """The probability of the most probable class."""
        return float(self.probabilities.max())


Images = Sequence[NDArray[np.uint8]] | Sequence[PreparedImage] | NDArray[np.uint8]


def predict(package: ClassificationPackage, images: Images, batch_size: int = 16) -> list[Prediction]:
    """Classify images, each uint8 [H, W, 3] RGB of any size or prepared already; one answer each, in order.

    May be called from several threads.

    Args:
        package: the classifier.
        images: the images.
        batch_size: images in one run of the graph. Default 16.

    Raises:
        ValueError: an array is not an image.
        BadPackage: the graph cannot be loaded or gives a logit that is not finite.
    """
    results: list[Prediction] = []
    for start in range(0, len(images), batch_size):
        chunk = [
            image if isinstance(image, PreparedImage) else prepare_image(package, image)
            for image in images[start : start + batch_size]
        ]
        results += predict_prepared(package, chunk, batch_size)
    return results


def prepare_image(package: ClassificationPackage, pixels: NDArray[np.uint8]) -> PreparedImage:
    """Do what `predict` does before it runs the graph, for one image uint8 [H, W, 3]. Raises ValueError."""
    tiles = prepare(pixels, package.card.input_size, package.card.resize)
    return PreparedImage(tiles, height=pixels.shape[0], width=pixels.shape[1])


def predict_prepared(
    package: ClassificationPackage, images: Sequence[PreparedImage], batch_size: int = 16
) -> list[Prediction]:
    """Do the rest of `predict` for prepared images, `batch_size` (16) of them in one run. Raises BadPackage."""
    results: list[Prediction] = []
    session, path = package.session(), package.folder / GRAPH
    for start in range(0, len(images), batch_size):
        logits, embeddings = run_graph(session, path, images[start : start + batch_size], len(package.card.classes))
        probabilities = softmax(logits / package.card.temperature)
        results += [Prediction(*rows) for rows in zip(probabilities, embeddings, logits, strict=True)]
    return results


def run_graph(
    session: onnxruntime.InferenceSession, path: Path, images: Sequence[PreparedImage], classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits [n, classes] and embeddings [n, d] of prepared images, in one run.

    Raises:
        BadPackage: a logit is not a finite number, or there are not as many as classes.
    """
    tiles = np.concatenate([image.tiles for image in images])
    logits, embeddings = session.run(list(OUTPUTS), {"image": tiles})
    if logits.shape != (len(tiles), classes) or not np.isfinite(logits).all():
        raise BadPackage(f"{path}: gave logits that are not {classes} finite numbers; export the model again")
    return logits, embeddings


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities [n, classes] of logits [n, classes]."""
    powers = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float64))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def conformal_set(package: ClassificationPackage, probabilities: NDArray[np.float32]) -> list[int]:
    """Return the places of the classes that an image may show at the promised coverage, most probable first.

    Split conformal prediction with the score 1 - p (Sadinle, Lei and Wasserman, *Least Ambiguous Set-Valued Classifiers
    with Bounded Error Levels*, JASA 114, 2019). The most probable class is always in it.
    """
    order = np.argsort(-probabilities, kind="stable")
    return [int(place) for place in order if probabilities[place] >= package.card.set_threshold] or [int(order[0])]
