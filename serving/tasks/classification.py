"""Classification in serving: classes with calibrated probabilities, and the conformal set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.project import Project
from pipelines.errors import BadPackage
from pipelines.images.preprocess import PreparedImage
from pipelines.tasks.classification.package import LOGITS, ClassificationPackage
from pipelines.tasks.classification.predict import (
    Prediction,
    conformal_set,
    predict,
    predict_prepared,
    prepare_image,
    softmax,
)
from serving.tasks import MOST_AT_ONCE, NOTHING_SERVED, Judgement, ramp

MOST_CLASSES = 20  # in an answer of POST /predict
_PROBE_TOLERANCE = 1e-3  # added to the package's own: other processors round differently
_DIGITS = 6  # of a probability in an answer


@dataclass(frozen=True)
class ServedClassifier:
    """A classifier that serves; see `serving.tasks.ServedModel`.

    A result is float32 [classes]: the calibrated probabilities in the order of the card.

    Attributes:
        package: the package, with its classes and their calibration.
    """

    task: ClassVar[str] = "classification"
    draws_maps: ClassVar[bool] = False

    package: ClassificationPackage

    @classmethod
    def open(cls, folder: Path, threads: int) -> Self:
        """Open the package in `folder`, and classify its stored examples again. Raises BadPackage."""
        package = ClassificationPackage.open(folder, threads=threads)
        _check_on_examples(package)
        return cls(package)

    @property
    def bits(self) -> int | None:
        """The bit depth that images of more than eight bits are scaled by."""
        return self.package.card.bits

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of a result."""
        return self.package.card.classes

    def following(self, project: Project) -> Self:
        """Return itself: no setting of the project file changes an answer."""
        return self

    def prepare(self, pixels: NDArray[np.uint8]) -> PreparedImage:
        """Return an image as the network takes it."""
        return prepare_image(self.package, pixels)

    def run(self, images: Sequence[PreparedImage]) -> Sequence[Prediction]:
        """Classify prepared images in one run."""
        return predict_prepared(self.package, images, MOST_AT_ONCE)

    def result(self, output: Prediction) -> NDArray[np.float32]:
        """Return the calibrated probabilities."""
        return output.probabilities

    def judge(self, result: NDArray[np.float32]) -> Judgement:
        """Return the class, its probability, and the conformal set."""
        ranked = self.ranked(result)
        held = [self.classes[place] for place in conformal_set(self.package, result)]
        best: dict[str, Any] = {"class": ranked[0][0], "certainty": ranked[0][1], "unsure": len(held) > 1}
        shown = [{"class": name, "probability": probability} for name, probability in ranked[:MOST_CLASSES]]
        answer = {"task": self.task, **best, "classes": shown, "conformal_set": held}
        probabilities = dict(zip(self.classes, result.tolist(), strict=True))
        stored = best | {"conformal_set": held, "probabilities": probabilities}
        columns = {
            "score": float(result.max()),
            "threshold": None,
            "is_anomaly": None,
            "verdict": None,
            "answer": stored,
        }
        return Judgement(answer, columns, "unsure" if best["unsure"] else "sure")

    def ranked(self, result: NDArray[np.float32]) -> list[tuple[str, float]]:
        """Return all classes with their probabilities, most probable first."""
        return [
            (self.classes[place], round(float(result[place]), _DIGITS)) for place in np.argsort(-result, kind="stable")
        ]

    def recalled(self, answer: Any) -> NDArray[np.float32] | None:
        """Return the result that a stored `answer` of this version holds; None if it holds no such result."""
        probabilities = answer.get("probabilities") if isinstance(answer, Mapping) else None
        if not isinstance(probabilities, Mapping) or set(probabilities) != set(self.classes):
            return None
        return np.array([float(probabilities[name]) for name in self.classes], np.float32)

    def draw(self, picture: Image.Image, output: Prediction) -> bytes:
        """Raise TypeError: a classifier draws no heat map."""
        raise TypeError("a classifier draws no heat map")

    def report(self) -> dict[str, Any]:
        """Return the classes; there is no threshold."""
        return NOTHING_SERVED | {"classes": list(self.classes)}


def _check_on_examples(package: ClassificationPackage) -> None:
    """Classify the package's stored examples, or without any a synthetic image, so that no request is the first run."""
    examples = package.examples
    if not examples:
        predict(package, [ramp(package.card.input_size)])
        return
    tolerance = package.card.onnx_tolerance + _PROBE_TOLERANCE
    logits = package.reference[LOGITS][: len(examples)].astype(np.float32)
    if logits.shape != (len(examples), len(package.card.classes)):
        raise BadPackage(
            f"{package.folder}: keeps logits {list(logits.shape)} of {len(examples)} examples and "
            f"{len(package.card.classes)} classes; export the model again"
        )
    expected = softmax(logits / package.card.temperature)
    for number, (stored, output) in enumerate(zip(expected, predict(package, examples), strict=True), start=1):
        difference = float(np.abs(stored - output.probabilities).max())
        if not difference <= tolerance:  # also where it is no number
            raise BadPackage(
                f"{package.folder}: the probabilities of stored example {number} differ by {difference:.3g}; "
                "export the model again"
            )
