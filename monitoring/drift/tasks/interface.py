"""What drift has to know of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from monitoring.drift.comparison import FalseAlarms, Observed
from monitoring.drift.current_window import Current
from monitoring.drift.scored_images import Answer
from pipelines.config.project import Project
from pipelines.registry.package import Package


@dataclass(frozen=True)
class Findings:
    """What a task's predictions in the window say beyond a comparison of distributions.

    Attributes:
        results: stored with the report, by name.
        reasons: sentences that people should read whether or not it is drift.
        left_out: why something could not be found, by name.
        alarms: the known false alarms of a detector; None of any other task, and of one that promises no rate.
    """

    results: dict[str, Any]
    reasons: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    alarms: FalseAlarms | None = None


class DriftTask(Protocol):
    """How drift reads the packages and predictions of one task.

    Attributes:
        score_name: what the score of an image is.
    """

    score_name: str

    def reference(self, package: Package) -> Observed:
        """Return the champion's validation set as seen at training."""
        ...

    def stored(self, row: Mapping[Any, Any]) -> Answer | None:
        """Return what a row of `predictions` says of its image; None if it does not, and the image is scored again."""
        ...

    def predict(
        self, package: Package, images: Sequence[NDArray[np.uint8]]
    ) -> list[tuple[Answer, NDArray[np.float32]]]:
        """Return what the package says of images, each uint8 [H, W, 3], with their embeddings [d]."""
        ...

    def examine(self, project: Project, version: str, package: Package, current: Current) -> Findings:
        """Return what the predictions in the window say beyond their distributions."""
        ...
