"""Anomaly detection behind the interface of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.model_settings import AnomalySettings
from pipelines.steps import EvaluationReport, ModelPackage, PackRef, Run, TrainedModel
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import Images, Prediction, predict
from pipelines.tasks.interface import Comparison, Contender

if TYPE_CHECKING:
    import pandas as pd


class AnomalyTask:
    """Anomaly detection by a restoration network; see `pipelines.tasks.interface.Task`."""

    name = "anomaly"
    settings = AnomalySettings
    prediction = Prediction

    def train(self, run: Run, pack: PackRef) -> TrainedModel:
        """Train the restoration network; see `pipelines.tasks.anomaly.train`."""
        from pipelines.tasks.anomaly.train import train

        return train(run, pack)

    def export(self, run: Run, pack: PackRef, model: TrainedModel) -> ModelPackage:
        """Export it to ONNX; see `pipelines.tasks.anomaly.export`."""
        from pipelines.tasks.anomaly.export import export

        return export(run, pack, model)

    def calibrate(self, run: Run, pack: PackRef, package: ModelPackage | None) -> ModelPackage:
        """Set the threshold; see `pipelines.tasks.anomaly.calibrate`."""
        from pipelines.tasks.anomaly.calibrate import calibrate

        return calibrate(run, pack, package)

    def evaluate(self, run: Run, pack: PackRef, package: ModelPackage) -> EvaluationReport:
        """Judge it on the test subsets; see `pipelines.tasks.anomaly.evaluate`."""
        from pipelines.tasks.anomaly.evaluate import evaluate

        return evaluate(run, pack, package)

    def compare(self, run: Run, challenger: Contender, champion: Contender | None, samples: pd.DataFrame) -> Comparison:
        """Compare it with the champion; see `pipelines.tasks.anomaly.compare`."""
        from pipelines.tasks.anomaly.compare import compare

        return compare(run, challenger, champion, samples)

    def open_package(self, folder: Path, *, threads: int = 0) -> AnomalyPackage:
        """Open a package; see `AnomalyPackage.open`."""
        return AnomalyPackage.open(folder, threads=threads)

    def predict(self, package: AnomalyPackage, images: Images) -> list[Prediction]:
        """Score images; see `pipelines.tasks.anomaly.predict`."""
        return predict(package, images)
