"""Writes an evaluation into its MLflow run; again writes the same once more, not a second time.

Metrics bear the run's own start as their time, so that a repeated one is the same row; files are overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.steps import EvaluationReport, Run

if TYPE_CHECKING:
    import pandas as pd

_DATASET_COLUMNS = ("sha256", "key", "label", "type", "subset", "width", "height", "group_key")


def log_evaluation(
    run: Run,
    manifest: pd.DataFrame,
    report: EvaluationReport,
    text: str,
    folder: Path,
    *,
    tables: Mapping[str, pd.DataFrame],
    values: Mapping[str, float],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log metrics with their bounds, the dataset version, plots, tables and notes to the run's MLflow run.

    MLflow's errors rise, after its own retries.

    Args:
        run: the run.
        manifest: the rows of its dataset version.
        report: what the evaluation found.
        text: the report as it is stored.
        folder: holds `figures/`; tables and the report are written beside it.
        tables: the task's own tables by name, beside the metrics and the recall by type.
        values: further metrics without an interval.
        tags: further tags. Default None.
    """
    import mlflow
    import pandas as pd
    from mlflow.entities import DatasetInput, InputTag, Metric, RunTag

    client = mlflow.MlflowClient()
    run_id = str(run.mlflow_run_id)
    when = client.get_run(run_id).info.start_time
    logged = dict(values)
    for name, estimate in report.metrics.items():
        logged |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    logged |= {f"test_{name}": float(count) for name, count in report.counts.items()}

    # MLflow warns of integers, which it takes for a model's input.
    rows = manifest[list(_DATASET_COLUMNS)].astype({"width": float, "height": float})
    dataset = mlflow.data.from_pandas(  # type: ignore[attr-defined]
        rows, source=run.dataset.manifest_uri, name=run.version_id, digest=run.dataset.digest[:36]
    )
    context = InputTag("mlflow.data.context", "training" if run.kind == "retrain" else "evaluation")
    client.log_inputs(run_id, [DatasetInput(dataset._to_mlflow_entity(), [context])])

    written = {
        "metrics": pd.DataFrame(
            [{"figure": name, **estimate.to_json()} for name, estimate in report.metrics.items()],
            columns=["figure", "value", "low", "high"],
        ),
        "recall_by_type": pd.DataFrame(
            [{"type": name, **row} for name, row in report.by_type.items()],
            columns=["type", "n", "found", "value", "low", "high"],
        ),
        **tables,
    }
    (folder / "tables").mkdir(exist_ok=True)
    for name, table in written.items():
        # MLflow's table format is pandas' `split`.
        content = table.to_json(orient="split", index=False)
        (folder / "tables" / f"{name}.json").write_text(content, encoding="utf-8")
    (folder / "evaluation.json").write_text(text, encoding="utf-8")
    for name in ("figures", "tables"):
        client.log_artifacts(run_id, str(folder / name), name)
    client.log_artifact(run_id, str(folder / "evaluation.json"))
    shown = json.dumps([{"path": f"tables/{name}.json", "type": "table"} for name in written])
    # The last is what MLflow's page of evaluations reads to show tables side by side.
    all_tags = {**(tags or {}), "notes": "\n".join(report.notes) or "none", "mlflow.loggedArtifacts": shown}
    metrics = [Metric(name, float(value), when, 0) for name, value in logged.items()]
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(name, value) for name, value in all_tags.items()])
