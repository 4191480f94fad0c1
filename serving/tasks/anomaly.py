"""Anomaly detection in serving: score, threshold, review threshold, p-value and heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.project import Project
from pipelines.errors import BadPackage
from pipelines.images.preprocess import PreparedImage
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import Prediction, predict, predict_prepared, prepare_image
from pipelines.tasks.anomaly.threshold import conformal
from serving.api import heatmap
from serving.tasks import MOST_AT_ONCE, Judgement, ramp

_PROBE_TOLERANCE = 1e-3  # of the threshold, added to the package's own: other processors round differently


@dataclass(frozen=True)
class ServedDetector:
    """An anomaly detector that serves; see `serving.tasks.ServedModel`.

    Attributes:
        package: the package, with its threshold.
        validation: float64 [n], the sorted scores of the good validation images.
        map_limit: the value in an error map that corresponds to the threshold.
        review_threshold: the project's second, lower threshold; None if it has none.
    """

    task: ClassVar[str] = "anomaly"
    draws_maps: ClassVar[bool] = True

    package: AnomalyPackage
    validation: NDArray[np.float64]
    map_limit: float
    review_threshold: float | None = None

    @classmethod
    def open(cls, folder: Path, threads: int) -> Self:
        """Open the package in `folder`, and score its stored examples again. Raises BadPackage."""
        package = AnomalyPackage.open(folder, threads=threads)
        scored = _check_on_examples(package)
        return cls(package, np.sort(package.reference["score"].astype(np.float64)), _map_limit(package, scored))

    @property
    def bits(self) -> int | None:
        """The bit depth that images of more than eight bits are scaled by."""
        return self.package.card.bits

    @property
    def threshold(self) -> float:
        """The score above which an image is an anomaly."""
        return self.package.card.threshold

    def following(self, project: Project) -> Self:
        """Return the model with the project's review threshold, which the set proportion of good images exceeds."""
        rate, value = project.threshold.review_false_positive_rate, None
        if rate is not None and len(self.validation):
            value = min(self.threshold, conformal(self.validation, rate).value)
        return self if value == self.review_threshold else replace(self, review_threshold=value)

    def prepare(self, pixels: NDArray[np.uint8]) -> PreparedImage:
        """Return an image as the network takes it."""
        return prepare_image(self.package, pixels)

    def run(self, images: Sequence[PreparedImage]) -> Sequence[Prediction]:
        """Score prepared images in one run."""
        return predict_prepared(self.package, images, MOST_AT_ONCE)

    def result(self, output: Prediction) -> float:
        """Return the anomaly score."""
        return output.score

    def judge(self, result: float) -> Judgement:
        """Return the verdict and the p-value of a score.

        The p-value is conformal: (1 + validation scores at least as high) / (n + 1), which for a good image is at most
        p with probability p (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005, section 2.2).
        """
        n = len(self.validation)
        as_high = n - int(np.searchsorted(self.validation, result, side="left"))
        is_anomaly = result > self.threshold
        review = self.review_threshold is not None and result > self.review_threshold
        verdict = "anomaly" if is_anomaly else "review" if review else "good"
        answer = {
            "task": self.task,
            "is_anomaly": is_anomaly,
            "anomaly_score": result,
            "reconstruction_error": result,
            "threshold": self.threshold,
            "p_value": (1 + as_high) / (n + 1),
            "verdict": verdict,
            "review_threshold": self.review_threshold,
        }
        columns = {"score": result, "threshold": self.threshold, "is_anomaly": is_anomaly, "verdict": verdict}
        return Judgement(answer, columns, verdict)

    def draw(self, picture: Image.Image, output: Prediction) -> bytes:
        """Return the error map over its image, as PNG."""
        return heatmap.draw(picture, output.error_map, self.package.card.resize, self.map_limit)

    def report(self) -> dict[str, Any]:
        """Return the thresholds."""
        return {
            "threshold": self.threshold,
            "review_threshold": self.review_threshold,
            "threshold_policy": self.package.card.threshold_policy,
        }


def _check_on_examples(package: AnomalyPackage) -> list[Prediction]:
    """Score the package's stored examples, or without any a synthetic image, so that no request is the first run."""
    examples = package.examples
    if not examples:
        return predict(package, [ramp(package.card.input_size)])
    tolerance = package.card.onnx_tolerance + _PROBE_TOLERANCE * package.card.threshold
    predictions = predict(package, examples)
    for stored, scored in zip(package.reference["score"], predictions, strict=False):
        if abs(float(stored) - scored.score) > tolerance:
            raise BadPackage(
                f"{package.folder}: scores a stored example {scored.score:.6g} instead of {float(stored):.6g}; "
                "export the model again"
            )
    return predictions


def _map_limit(package: AnomalyPackage, scored: list[Prediction]) -> float:
    """Return the peak value of an error map whose score equals the threshold.

    Estimated as the threshold times the median ratio of map peak to score; where the score is the map's maximum, this
    is the threshold itself.
    """
    ratios = [float(result.error_map.max()) / result.score for result in scored if result.score > 0]
    ratio = float(np.median(ratios)) if ratios else 1.0
    return max(package.card.threshold * ratio, 1e-6)
