"""A training's run in MLflow: opened once, found again by its training id, ended with a state. Experiment = project."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipelines.config.settings import settings
from pipelines.steps import Run


def experiment_id(project: str) -> str:
    """Return the id of the project's experiment, made at first use."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(project)
    if experiment is None:
        try:
            return str(client.create_experiment(project))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(project)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def open_run(experiment: str, run: Run, chosen: dict[str, dict[str, Any]]) -> str:
    """Return the id of the training's run, running: the one that an earlier try opened, or a new one.

    `chosen` are the sections of the project file that become parameters, `section.key`.
    """
    import mlflow
    from mlflow.entities import Param, RunTag

    client = mlflow.MlflowClient()
    runs = client.search_runs([experiment], f"tags.training_id = '{run.training_id}'", max_results=1)
    if runs:
        run_id = str(runs[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {"training_id": run.training_id, "version_id": run.version_id, "kind": run.kind, "task": run.task}
        run_id = str(client.create_run(experiment, run_name=run.training_id, tags=tags).info.run_id)
    params = {**_flat(chosen), **asdict(run.parameters), "version_id": run.version_id}
    tags = {
        "dag_run_id": run.dag_run_id,
        "airflow": run.airflow_url,
        "manifest": run.dataset.manifest_uri,
        "champion_at_start": run.champion.version if run.champion else "none",
        "mlflow.source.git.commit": run.git_revision,
        "dataset_notes": "\n".join(run.dataset.notes) or "none",
    }
    client.log_batch(
        run_id,
        params=[Param(key, str(value)) for key, value in params.items()],
        tags=[RunTag(key, str(value)) for key, value in tags.items()],
    )
    return run_id


def end_run(run_id: str, state: str, tags: dict[str, str]) -> None:
    """End the run as FINISHED or FAILED, with tags that say why."""
    import mlflow

    client = mlflow.MlflowClient()
    for key, value in tags.items():
        client.set_tag(run_id, key, value)
    client.set_terminated(run_id, state)


def run_url(experiment: str, run_id: str) -> str:
    """Return the address of the run's page."""
    return f"{settings().mlflow_url}/#/experiments/{experiment}/runs/{run_id}"


def _flat(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return nested settings as `section.key`."""
    return {f"{section}.{key}": value for section, keys in settings.items() for key, value in keys.items()}
