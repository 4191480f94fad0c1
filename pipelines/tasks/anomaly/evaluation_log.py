"""Writes an evaluation into its MLflow run; again writes the same once more, not a second time.

Metrics bear the run's own start as their time, so that a repeated one is the same row; files are overwritten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.steps import EvaluationReport, Run
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.plots import worst

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.anomaly.scored_test_set import ScoredTestSet

_DATASET_COLUMNS = ("sha256", "key", "label", "type", "subset", "width", "height", "group_key")


def log_evaluation(
    run: Run,
    package: AnomalyPackage,
    manifest: pd.DataFrame,
    tested: ScoredTestSet,
    report: EvaluationReport,
    text: str,
    folder: Path,
) -> None:
    """Log metrics with their bounds, the dataset version, plots, tables and notes to the run's MLflow run.

    `folder` holds `figures/`; tables and the report, `text`, are written beside it. MLflow's errors rise, after
    its own retries.
    """
    import mlflow
    from mlflow.entities import DatasetInput, InputTag, Metric, RunTag

    client = mlflow.MlflowClient()
    run_id = str(run.mlflow_run_id)
    when = client.get_run(run_id).info.start_time
    values = {"threshold": package.card.threshold}
    for name, estimate in report.metrics.items():
        values |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    values |= {f"test_{name}": float(count) for name, count in report.counts.items()}
    metrics = [Metric(name, float(value), when, 0) for name, value in values.items()]

    # MLflow warns of integers, which it takes for a model's input.
    rows = manifest[list(_DATASET_COLUMNS)].astype({"width": float, "height": float})
    dataset = mlflow.data.from_pandas(  # type: ignore[attr-defined]
        rows, source=run.dataset.manifest_uri, name=run.version_id, digest=run.dataset.digest[:36]
    )
    context = InputTag("mlflow.data.context", "training" if run.kind == "retrain" else "evaluation")
    client.log_inputs(run_id, [DatasetInput(dataset._to_mlflow_entity(), [context])])

    tables = _write_tables(folder, package, tested, report)
    (folder / "evaluation.json").write_text(text, encoding="utf-8")
    for name in ("figures", "tables"):
        client.log_artifacts(run_id, str(folder / name), name)
    client.log_artifact(run_id, str(folder / "evaluation.json"))
    shown = json.dumps([{"path": f"tables/{name}", "type": "table"} for name in tables])
    tags = [
        RunTag("threshold_policy", package.card.threshold_policy),
        RunTag("notes", "\n".join(report.notes) or "none"),
        # What MLflow's page of evaluations reads to show tables side by side.
        RunTag("mlflow.loggedArtifacts", shown),
    ]
    client.log_batch(run_id, metrics=metrics, tags=tags)


def _write_tables(folder: Path, package: AnomalyPackage, tested: ScoredTestSet, report: EvaluationReport) -> list[str]:
    """Write MLflow's table format (pandas `split`) into `folder/tables` and return the file names."""
    import pandas as pd

    target = folder / "tables"
    target.mkdir(exist_ok=True)
    threshold = package.card.threshold
    misses, alarms = worst(tested.rows, threshold)
    shown = ["sha256", "key", "label", "type", "score"]
    tables = {
        "metrics.json": pd.DataFrame(
            [{"figure": name, **estimate.to_json()} for name, estimate in report.metrics.items()],
            columns=["figure", "value", "low", "high"],
        ),
        "thresholds.json": pd.DataFrame(_threshold_rows(package)),
        "recall_by_type.json": pd.DataFrame(
            [{"type": name, **row} for name, row in report.by_type.items()],
            columns=["type", "n", "found", "value", "low", "high"],
        ),
        "test_scores.json": tested.rows[shown].assign(is_anomaly=tested.rows["score"] > threshold),
        "worst.json": pd.concat([misses, alarms])[shown],
    }
    for name, table in tables.items():
        (target / name).write_text(table.to_json(orient="split", index=False), encoding="utf-8")
    return list(tables)


def _threshold_rows(package: AnomalyPackage) -> list[dict[str, Any]]:
    """Return a row for each threshold considered, with its bounds on the samples that it was set on."""
    rows = []
    detail = package.card.threshold_detail
    for name, considered in detail.thresholds.items() if detail else ():
        row = {"threshold": name, "served": name == package.card.threshold_policy, "value": considered.value}
        for metric, estimate in (
            ("false_positive_rate", considered.false_positive_rate),
            ("recall", considered.recall),
        ):
            row |= {
                f"{metric}{end}": getattr(estimate, key) if estimate else None
                for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
        rows.append(row | {"f1": considered.f1, "expected_cost": considered.expected_cost})
    return rows
