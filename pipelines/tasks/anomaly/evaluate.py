"""Judges a package on the test subsets alone, and logs what it finds to MLflow and S3.

A metric that the project's images do not allow (no anomalies yet, no masks) is left out, and a note says so. Everything
is computed anew from the images, so that a retried task finds the same and writes it over what was there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.config.metrics import ENOUGH_ANOMALIES
from pipelines.config.project import load_project
from pipelines.datasets.original_images import read_mask
from pipelines.errors import BadDataset
from pipelines.evaluation import metrics
from pipelines.evaluation.metrics import Confusion
from pipelines.evaluation.mlflow_log import log_evaluation
from pipelines.evaluation.pixel_metrics import PixelCounts, measure_pixels
from pipelines.images.preprocess import restore_map
from pipelines.registry.package_store import fetched_package, working_folder
from pipelines.steps import Estimate, EvaluationReport, ModelPackage, PackRef, Run
from pipelines.storage import keys
from pipelines.storage.s3 import Storage
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.scored_test_set import ScoredTestSet
from pipelines.tasks.anomaly.subset_scoring import prepared_images, score_each

if TYPE_CHECKING:
    import pandas as pd


def evaluate(run: Run, pack: PackRef, package: ModelPackage) -> EvaluationReport:
    """Evaluate the complete package that `calibrate` returned on the test subsets of the run's dataset version.

    The report's notes are the evaluation's own; the stored one begins with those of the threshold. Raises BadPackage or
    BadDataset if something cannot be read.
    """
    from pipelines.datasets.versions import read_manifest
    from pipelines.tasks.anomaly.evaluation_log import evaluation_tables
    from pipelines.tasks.anomaly.plots import draw_plots

    project = load_project(run.project)
    manifest = read_manifest(run.dataset.manifest_uri)
    with fetched_package(package.package_uri, open_package) as opened, working_folder() as folder:
        tested = score_test_subsets(run, pack, opened, manifest)
        report = judge(tested, opened, run.settings.threshold.defect_rate)
        whole = replace(report, notes=[*package.notes, *report.notes])
        draw_plots(folder / "figures", run.project, opened, tested, whole)
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
        uri = Storage(project.bucket).put(
            keys.evaluation(run.project, run.version_id, run.training_id), text.encode(), "application/json"
        )
        log_evaluation(
            run,
            manifest,
            whole,
            text,
            folder,
            tables=evaluation_tables(opened, tested),
            values={"threshold": opened.card.threshold},
            tags={"threshold_policy": opened.card.threshold_policy},
        )
    return replace(report, report_uri=uri)


def open_package(folder: Path) -> AnomalyPackage:
    """Return the package in `folder`, to be run on two threads."""
    return AnomalyPackage.open(folder, threads=2)


def score_test_subsets(run: Run, pack: PackRef, package: AnomalyPackage, manifest: pd.DataFrame) -> ScoredTestSet:
    """Score the samples of `test` and `anomaly/test`, counting pixels where it is known which are anomalous.

    Pixel metrics want the good images too, and leave out anomalies without a mask: their pixels are unknown.
    """
    rows = manifest[manifest["subset"].isin(["test", "anomaly/test"])].sort_values(["label", "sha256"])
    rows = rows.reset_index(drop=True)
    if not len(rows):
        raise BadDataset(f"dataset version {run.version_id} of {run.project} has no test images: add images")
    has_mask = np.array([isinstance(key, str) and bool(key) for key in rows["mask_key"]]) & (rows["label"] == "anomaly")
    counted = has_mask | (rows["label"] == "good") if has_mask.any() else has_mask
    pixels, scores = PixelCounts(), np.empty(len(rows))
    images = prepared_images(run, pack, rows, package.graph, package.card.bits)
    for number, (_, scored) in enumerate(score_each(package, images)):
        scores[number] = scored.score
        if counted[number]:
            row = rows.loc[number]
            mask = read_mask(run.project, row)
            height, width = mask.shape
            pixels.add(restore_map(scored.error_map, height, width, package.card.resize), mask)
    return ScoredTestSet(rows.assign(score=scores), pixels, int(has_mask.sum()))


def judge(tested: ScoredTestSet, package: AnomalyPackage, defect_rate: float) -> EvaluationReport:
    """Return all metrics that the test scores allow, with intervals, and notes on those that they do not."""
    threshold = package.card.threshold
    good, anomalies = tested.good, tested.anomalies
    verdicts = Confusion.at(threshold, good, anomalies)
    estimates: dict[str, Estimate | None] = {
        "reconstruction_error_validation": metrics.mean(package.reference["score"]),
    }
    notes = []
    if len(good):
        estimates["false_positive_rate"] = metrics.false_positive_rate(verdicts)
    else:
        notes.append("There are no good test images: no false-positive rate, AUROC or precision can be given.")
    if len(anomalies):
        estimates["recall"] = metrics.recall(verdicts)
        estimates["reconstruction_error_anomaly"] = metrics.mean(anomalies)
    else:
        notes.append(
            "There are no test anomalies: AUROC, average precision, F1, precision, recall and the anomalies'"
            " reconstruction error cannot be given."
        )
    if len(good) and len(anomalies):
        estimates |= {
            "auroc": metrics.auroc(good, anomalies),
            "average_precision": metrics.average_precision(good, anomalies),
            "f1": metrics.f1(verdicts),
            "precision": metrics.precision(verdicts),
            "precision_on_line": metrics.precision_on_line(verdicts, defect_rate),
        }
        if estimates["precision"] is None:
            notes.append("No test image lies above the threshold: precision cannot be given.")
        if len(anomalies) < ENOUGH_ANOMALIES:
            notes.append(
                f"With only {len(anomalies)} test anomalies every metric about anomalies is rough: see intervals."
            )
    estimates |= _measured_pixels(tested, notes)
    types = tested.rows.loc[tested.rows["label"] == "anomaly", "type"]
    return EvaluationReport(
        metrics={name: estimate for name, estimate in estimates.items() if estimate is not None},
        confusion={
            "true_positive": verdicts.true_positive,
            "false_negative": verdicts.false_negative,
            "false_positive": verdicts.false_positive,
            "true_negative": verdicts.true_negative,
        },
        by_type=metrics.recall_by_type(
            threshold, anomalies, [kind if isinstance(kind, str) and kind else "untyped" for kind in types]
        ),
        counts={"good": len(good), "anomalies": len(anomalies), "masked_anomalies": tested.masked},
        threshold=threshold,
        policy=package.card.threshold_policy,
        notes=notes,
    )


def _measured_pixels(tested: ScoredTestSet, notes: list[str]) -> dict[str, Estimate | None]:
    if not tested.pixels.usable:
        if len(tested.anomalies):
            notes.append("No test anomaly has a mask: pixel AUROC and AUPRO cannot be given.")
        return {}
    if tested.masked < len(tested.anomalies):
        notes.append(
            f"Pixel AUROC and AUPRO rest on the {tested.masked} of {len(tested.anomalies)} test anomalies with a mask."
        )
    measured = measure_pixels(tested.pixels)
    return {"pixel_auroc": measured.pixel_auroc, "aupro": measured.aupro}
