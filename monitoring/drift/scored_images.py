"""Images with what a version says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.comparison import Observed


@dataclass(frozen=True)
class Answer:
    """What a version says of one image.

    Attributes:
        score: the anomaly score, or the certainty of the predicted class.
        predicted: the predicted class; None of a model without classes.
        unsure: whether the conformal set holds more than one class.
    """

    score: float
    predicted: str | None = None
    unsure: bool = False


@dataclass(frozen=True)
class ScoredImage:
    """One served image with its answer.

    Attributes:
        order: id of its prediction, which grows in order of serving.
        sha256: digest of the image.
        answer: what the version says of it.
        embedding: float32 [d].
        descriptors: values by name, as measured when it was served.
    """

    order: int
    sha256: str
    answer: Answer
    embedding: NDArray[np.float32]
    descriptors: dict[str, float]


def observe(scored: Sequence[ScoredImage], reference: Observed) -> Observed:
    """Return the images as columns, in the form of `reference`; descriptors that none of them has are left out."""
    names = tuple(name for name in reference.descriptor_names if any(name in image.descriptors for image in scored))
    values = [[_number(image.descriptors.get(name)) for name in names] for image in scored]
    classified = reference.classes is not None
    return Observed(
        score=np.array([image.answer.score for image in scored], np.float64),
        embedding=np.array([image.embedding for image in scored], np.float32).reshape(
            len(scored), reference.embedding.shape[1]
        ),
        descriptors=np.array(values, np.float64).reshape(len(scored), len(names)),
        descriptor_names=names,
        score_name=reference.score_name,
        classes=np.array([image.answer.predicted for image in scored], np.str_) if classified else None,
        unsure=np.array([image.answer.unsure for image in scored], np.bool_) if classified else None,
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
