"""Judges a classifier on the test subset alone, and logs what it finds to MLflow and S3.

Everything is computed anew from the images, so that a retried task finds the same and writes it over what was there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.config.project import load_project
from pipelines.errors import BadDataset
from pipelines.evaluation import classification_metrics as metrics
from pipelines.evaluation.mlflow_log import log_evaluation
from pipelines.registry.package_store import fetched_package, working_folder
from pipelines.steps import EvaluationReport, ModelPackage, PackRef, Run
from pipelines.storage import keys
from pipelines.storage.s3 import Storage
from pipelines.tasks.classification.package import ClassificationPackage
from pipelines.tasks.classification.predict import predict_prepared
from pipelines.tasks.classification.predicted_set import PredictedSet
from pipelines.tasks.classification.prepared_images import prepared_images

if TYPE_CHECKING:
    import pandas as pd

BATCH = 64


def evaluate(run: Run, pack: PackRef, package: ModelPackage) -> EvaluationReport:
    """Evaluate the complete package that `calibrate` returned on the test subset of the run's dataset version.

    Raises:
        BadPackage: the package cannot be read.
        BadDataset: there are no test images of the model's classes, or one cannot be read.
    """
    from pipelines.datasets.versions import read_manifest
    from pipelines.tasks.classification.plots import draw_plots

    manifest = read_manifest(run.dataset.manifest_uri)
    with fetched_package(package.package_uri, open_package) as opened, working_folder() as folder:
        tested = predict_test_subset(run, pack, opened, manifest)
        report = judge(tested, opened)
        whole = replace(report, notes=[*package.notes, *report.notes])
        draw_plots(folder / "figures", run.project, tested, whole)
        stored = {
            "project": run.project,
            "task": run.task,
            "version_id": run.version_id,
            "training_id": run.training_id,
            "mlflow_run_id": run.mlflow_run_id,
            **whole.to_json(),
        }
        del stored["report_uri"]
        text = json.dumps(stored, indent=2)
        uri = Storage(load_project(run.project).bucket).put(
            keys.evaluation(run.project, run.version_id, run.training_id), text.encode(), "application/json"
        )
        log_evaluation(run, manifest, whole, text, folder, tables=_tables(tested), values=_values(opened))
    return replace(report, report_uri=uri)


def open_package(folder: Path) -> ClassificationPackage:
    """Return the package in `folder`, to be run on two threads."""
    return ClassificationPackage.open(folder, threads=2)


def predict_test_subset(
    run: Run, pack: PackRef, package: ClassificationPackage, manifest: pd.DataFrame
) -> PredictedSet:
    """Classify the test samples whose class the model knows."""
    test = manifest[manifest["subset"] == "test"].sort_values(["label", "sha256"])
    rows = test[test["label"].isin(package.card.classes)].reset_index(drop=True)
    if not len(rows):
        raise BadDataset(f"dataset version {run.version_id} of {run.project} has no test images: add images")
    card, probabilities = package.card, []
    waiting = []
    for image in prepared_images(run, pack, rows, card.input_size, card.resize, card.bits):
        waiting.append(image)
        if len(waiting) == BATCH:
            probabilities += [prediction.probabilities for prediction in predict_prepared(package, waiting)]
            waiting = []
    probabilities += [prediction.probabilities for prediction in predict_prepared(package, waiting)]
    return PredictedSet(rows, card.classes, np.stack(probabilities), card.set_threshold, len(test) - len(rows))


def judge(tested: PredictedSet, package: ClassificationPackage) -> EvaluationReport:
    """Return all metrics of the test images, with intervals, and notes."""
    probabilities, labels, groups = tested.probabilities, tested.labels, tested.groups
    sets = tested.sets
    estimates = {
        "accuracy": metrics.top_accuracy(probabilities, labels),
        "macro_f1": metrics.macro_f1(probabilities, labels, groups),
        "calibration_error": metrics.calibration_error(probabilities, labels, groups),
        "coverage": metrics.coverage(sets, labels),
        "set_size": metrics.set_size(sets, groups),
    }
    if len(tested.classes) > 3:
        estimates["top_3_accuracy"] = metrics.top_accuracy(probabilities, labels, 3)
    notes = []
    if tested.unknown:
        notes.append(f"{tested.unknown} test images are of classes that the model does not know: they are left out.")
    missing = sorted(set(tested.classes) - set(tested.rows["label"]))
    if missing:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        notes.append(f"{len(missing)} classes have no test image: {shown}.")
    return EvaluationReport(
        metrics=estimates,
        confusion=metrics.confusion_counts(tested.predicted, labels, tested.classes),
        by_type=metrics.recall_by_class(probabilities, labels, tested.classes),
        counts={"images": len(labels), "classes": len(np.unique(labels))},
        notes=notes,
    )


def _values(package: ClassificationPackage) -> dict[str, float]:
    return {"temperature": package.card.temperature, "set_threshold": package.card.set_threshold}


def _tables(tested: PredictedSet) -> dict[str, pd.DataFrame]:
    """Return MLflow's tables of an evaluation by name: every prediction, and the most certain errors first."""
    rows = tested.rows[["sha256", "key", "label"]].assign(
        predicted=[tested.classes[place] for place in tested.predicted],
        certainty=tested.probabilities.max(axis=1).astype(float),
        classes_in_set=tested.sets.sum(axis=1).astype(float),
    )
    wrong = rows[rows["label"] != rows["predicted"]].sort_values("certainty", ascending=False)
    return {"predictions": rows, "worst": wrong.head(50)}
