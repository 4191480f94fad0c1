"""What a task is: the steps and the answer that differ between anomaly detection and whatever else a project may do.

The DAGs, the registry, the gate and serving know a task by this interface alone. An implementation imports its network
and its metrics inside its methods, so that serving, which only predicts, stays thin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.registry.package import Package
from pipelines.steps import (
    Estimate,
    EvaluationReport,
    ModelPackage,
    PackRef,
    Record,
    Run,
    TrainedModel,
    VersionMetrics,
)

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import BaseModel


@dataclass(frozen=True)
class Contender:
    """A registered version that takes part in a comparison.

    Attributes:
        version: its number in the registry.
        package: its package, opened by the task.
    """

    version: str
    package: Package


@dataclass(frozen=True)
class Comparison(Record):
    """A challenger beside the champion on the same samples, and what follows for its promotion.

    Attributes:
        fit: whether the challenger may be promoted.
        reasons: why, or why not.
        basis: what the comparison rests on.
        difference: of the deciding metric, challenger minus champion; None without a champion.
        challenger: the challenger's metrics.
        champion: the champion's; None if there is none or it could not be scored.
        failure: why the champion could not be scored; None if it was, or if there is none.
        notes: sentences to mind that do not decide.
    """

    fit: bool
    reasons: list[str]
    basis: str
    difference: Estimate | None
    challenger: VersionMetrics
    champion: VersionMetrics | None = None
    failure: str | None = None
    notes: list[str] = field(default_factory=list)


class Task(Protocol):
    """One kind of model: how it is trained, calibrated, judged and asked.

    Every implementation passes tests/pipelines/tasks/test_contract.py.

    Attributes:
        name: what a project file says under `task`.
        settings: the pydantic section `model` of the project file.
        prediction: the dataclass that `predict` answers, one a sample.
    """

    name: str
    settings: type[BaseModel]
    prediction: type

    def train(self, run: Run, pack: PackRef) -> TrainedModel:
        """Train on the pack's training subset and store the network in S3.

        Raises:
            TrainingFailed: it cannot be trained on this data.
        """
        ...

    def export(self, run: Run, pack: PackRef, model: TrainedModel) -> ModelPackage:
        """Export the network to ONNX and compare both on the validation subset.

        Raises:
            ExportMismatch: the graph does not compute what the network computes.
        """
        ...

    def calibrate(self, run: Run, pack: PackRef, package: ModelPackage | None) -> ModelPackage:
        """Calibrate on the validation subset and publish the complete package; `None`: the run's champion anew.

        Raises:
            NotEnoughImages: there is nothing to calibrate on.
        """
        ...

    def evaluate(self, run: Run, pack: PackRef, package: ModelPackage) -> EvaluationReport:
        """Score the test subsets and log metrics with confidence intervals, and plots, to MLflow."""
        ...

    def compare(self, run: Run, challenger: Contender, champion: Contender | None, samples: pd.DataFrame) -> Comparison:
        """Score both versions on `samples`, manifest rows of the test subsets, and judge the challenger."""
        ...

    def open_package(self, folder: Path, *, threads: int = 0) -> Package:
        """Open a complete package of this task, ready to predict.

        Raises:
            BadPackage: it is damaged, or another task's.
        """
        ...

    def predict(self, package: Any, images: Sequence[Any]) -> list[Any]:
        """Return a `prediction` for each image, in order. Thin: numpy, Pillow and ONNX Runtime only."""
        ...
