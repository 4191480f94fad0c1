"""Classification behind the interface of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.model_settings import ClassificationSettings
from pipelines.steps import EvaluationReport, ModelPackage, PackRef, Run, TrainedModel
from pipelines.tasks.classification.package import ClassificationPackage
from pipelines.tasks.classification.predict import Images, Prediction, predict
from pipelines.tasks.interface import Comparison, Contender

if TYPE_CHECKING:
    import pandas as pd


class ClassificationTask:
    """Classification by a head on a pretrained backbone; see `pipelines.tasks.interface.Task`."""

    name = "classification"
    settings = ClassificationSettings
    prediction = Prediction

    def train(self, run: Run, pack: PackRef) -> TrainedModel:
        """Train the head, then the upper blocks of the backbone; see `pipelines.tasks.classification.train`."""
        from pipelines.tasks.classification.train import train

        return train(run, pack)

    def export(self, run: Run, pack: PackRef, model: TrainedModel) -> ModelPackage:
        """Export it to ONNX; see `pipelines.tasks.classification.export`."""
        from pipelines.tasks.classification.export import export

        return export(run, pack, model)

    def calibrate(self, run: Run, pack: PackRef, package: ModelPackage | None) -> ModelPackage:
        """Set temperature and conformal set; see `pipelines.tasks.classification.calibrate`."""
        from pipelines.tasks.classification.calibrate import calibrate

        return calibrate(run, pack, package)

    def evaluate(self, run: Run, pack: PackRef, package: ModelPackage) -> EvaluationReport:
        """Judge it on the test subset; see `pipelines.tasks.classification.evaluate`."""
        from pipelines.tasks.classification.evaluate import evaluate

        return evaluate(run, pack, package)

    def compare(self, run: Run, challenger: Contender, champion: Contender | None, samples: pd.DataFrame) -> Comparison:
        """Classify the same samples by both versions; see `pipelines.tasks.classification.compare`."""
        from pipelines.tasks.classification.compare import compare

        return compare(run, challenger, champion, samples)

    def open_package(self, folder: Path, *, threads: int = 0) -> ClassificationPackage:
        """Open a complete package of a classifier."""
        return ClassificationPackage.open(folder, threads=threads)

    def predict(self, package: ClassificationPackage, images: Images) -> list[Prediction]:
        """Classify images; see `pipelines.tasks.classification.predict`."""
        return predict(package, images)
