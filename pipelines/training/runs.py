"""The ledger of runs: what began, with what, and how it ended, in the catalogue and as a run in MLflow.

A run of `retrain` or `evaluate` is one training, found again by its `dag_run_id` when a task is retried. One whose
dataset and parameters equal those of a completed training does not begin: it is skipped, with a link to that one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, RowMapping, insert, select, update

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.database import lock_project
from pipelines.catalogue.samples import mark_trained
from pipelines.catalogue.schema import now, trainings
from pipelines.config.project import Project, load_project
from pipelines.config.settings import settings
from pipelines.registry import client
from pipelines.registry.client import RegisteredVersion
from pipelines.steps import (
    Champion,
    DatasetVersion,
    EvaluationParameters,
    Kind,
    Outcome,
    Run,
    RunSettings,
    Skip,
    TrainingParameters,
)
from pipelines.training.code_version import git_revision
from pipelines.training.mlflow_run import end_run, experiment_id, open_run, run_url

# The parts of a project file that a training's outcome depends on; subsets and groups are in the dataset already.
_SETTINGS = {"model", "threshold", "promotion"}
# Keys of these that have no part in it, by task: serving's own, and those of the other tasks.
_WITHOUT_PART: dict[str, dict[str, Any]] = {
    "anomaly": {"threshold": {"review_false_positive_rate"}, "promotion": {"minimum_accuracy"}},
    "classification": {"threshold": True, "promotion": {"minimum_auroc"}},
}


@dataclass(frozen=True)
class FailedRun:
    """A training that was marked as failed.

    Attributes:
        training_id: names it.
        mlflow_url: its page in MLflow; None if it has none.
    """

    training_id: str
    mlflow_url: str | None


def begin(dataset: DatasetVersion, params: dict[str, Any], *, force: bool, dag_run_id: str) -> Run | Skip:
    """Enter a training on `dataset` and open its MLflow run.

    `params` are the trigger form's: `epochs`, `time_budget_minutes` (None: the project file's), `start_from` (`scratch`
    or `champion`) and `promote`. Called again for the same `dag_run_id`, it returns the same training.

    Returns the run, or why there is nothing to do; then nothing was entered. Raises RegistryError if the champion
    cannot be looked up.
    """
    project = load_project(dataset.project)
    parameters = TrainingParameters(
        epochs=params.get("epochs") or project.model.epochs,
        time_budget_minutes=params.get("time_budget_minutes") or project.model.time_budget_minutes,
        start_from=params.get("start_from") or "scratch",
        promote=params.get("promote") is not False,
    )
    return _begin(project, "retrain", dataset, parameters, force, dag_run_id, client.champion(project.name))


def begin_evaluation(project_name: str, params: dict[str, Any], *, dag_run_id: str) -> Run | Skip:
    """Enter an evaluation: the champion's weights, a new dataset version, and so a new calibration and a new version.

    `params` are `promote` and `force`. Without a champion of the project's task there is nothing to evaluate, and the
    run is skipped. Raises
    NotEnoughImages as `datasets.versions.freeze` does.
    """
    from pipelines.datasets.versions import freeze

    project = load_project(project_name)
    champion = client.champion(project_name)
    if champion is None:
        return Skip(f"{project_name} has no champion to evaluate yet: start {project_name}_retrain")
    made_for = champion.tags.get("task", project.task)
    if made_for != project.task:
        return Skip(
            f"champion version {champion.version} of {project_name} is of the task {made_for}, and the project's is"
            f" {project.task}: start {project_name}_retrain"
        )
    parameters = EvaluationParameters(promote=params.get("promote") is not False, champion=champion.version)
    force = bool(params.get("force"))
    return _begin(project, "evaluate", freeze(project_name), parameters, force, dag_run_id, champion)


def complete(run: Run, outcome: Outcome) -> None:
    """Mark the run's training as completed, its samples as trained on, and end the MLflow run; again changes nothing.

    `outcome` is kept as the training's result; `version` and `promoted` in it become columns. An evaluation trains on
    nothing, so its samples stay new.
    """
    from pipelines.datasets.versions import read_manifest

    completed = {
        "state": "completed",
        "model_version": outcome.version,
        "promoted": outcome.promoted,
        "result": outcome.to_json(),
        "finished_at": now(),
    }
    hashes = list(read_manifest(run.dataset.manifest_uri)["sha256"]) if run.kind == "retrain" else []
    with transaction() as connection:
        connection.execute(
            update(trainings)
            .where(trainings.c.training_id == run.training_id, trainings.c.state != "completed")
            .values(completed)
        )
        mark_trained(connection, run.project, hashes, run.version_id)
    if run.mlflow_run_id:
        end_run(run.mlflow_run_id, "FINISHED", {"model_version": str(outcome.version or "none")})


def fail(project: str, dag_run_id: str, why: str) -> FailedRun | None:
    """Mark the training of `dag_run_id` as failed and end its MLflow run; None if nothing was begun or it had ended."""
    with transaction() as connection:
        row = _of_dag_run(connection, project, dag_run_id)
        if row is None or row["state"] != "running":
            return None
        connection.execute(
            update(trainings)
            .where(trainings.c.training_id == row["training_id"])
            .values(state="failed", result={"why": why}, finished_at=now())
        )
    if row["mlflow_run_id"]:
        end_run(row["mlflow_run_id"], "FAILED", {"failure": why[:4000]})
    url = run_url(experiment_id(project), row["mlflow_run_id"]) if row["mlflow_run_id"] else None
    return FailedRun(row["training_id"], url)


def outcome(training_id: str) -> dict[str, Any]:
    """Return the result of a completed training as it was stored; nothing of any other."""
    with connect() as connection:
        result = select(trainings.c.result).where(
            trainings.c.training_id == training_id, trainings.c.state == "completed"
        )
        return dict(connection.execute(result).scalar() or {})


def parameters_digest(kind: Kind, dataset_digest: str, parameters: dict[str, Any], chosen: dict[str, Any]) -> str:
    """Return the SHA-256 that two trainings share if their dataset, parameters and project settings are equal."""
    content = {"kind": kind, "dataset": dataset_digest, "params": parameters, "settings": chosen}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _begin(
    project: Project,
    kind: Kind,
    dataset: DatasetVersion,
    parameters: TrainingParameters | EvaluationParameters,
    force: bool,
    dag_run_id: str,
    champion: RegisteredVersion | None,
) -> Run | Skip:
    chosen = project.model_dump(mode="json", include=_SETTINGS, exclude=_WITHOUT_PART[project.task])
    run = Run(
        project=project.name,
        task=project.task,
        kind=kind,
        training_id="",
        dataset=dataset,
        parameters=parameters,
        parameters_digest=parameters_digest(kind, dataset.digest, asdict(parameters), chosen),
        settings=RunSettings(**{section: getattr(project, section) for section in sorted(_SETTINGS)}),
        dag_run_id=dag_run_id,
        champion=Champion(champion.version, champion.digest, champion.tags.get("package_uri")) if champion else None,
        git_revision=git_revision(),
        airflow_url=airflow_run_url(f"{project.name}_{kind}", dag_run_id),
    )
    with transaction() as connection:
        lock_project(connection, project.name)
        own = _of_dag_run(connection, project.name, dag_run_id)
        done = _completed_like(connection, run, force, own)
        if done is None:
            run = replace(run, training_id=_enter(connection, run, own))
    if done is not None:
        return _skip(run, done)
    experiment = experiment_id(project.name)
    mlflow_run_id = open_run(experiment, run, chosen)
    run = replace(run, mlflow_run_id=mlflow_run_id, mlflow_url=run_url(experiment, mlflow_run_id))
    with transaction() as connection:
        connection.execute(
            update(trainings).where(trainings.c.training_id == run.training_id).values(mlflow_run_id=mlflow_run_id)
        )
    return run


def _completed_like(connection: Connection, run: Run, force: bool, own: RowMapping | None) -> RowMapping | None:
    """Return the completed training that makes this one needless: its own, or unless forced its equal."""
    if own is not None and own["state"] == "completed":
        return own
    if force:
        return None
    return (
        connection.execute(
            select(trainings)
            .where(
                trainings.c.project == run.project,
                trainings.c.params_digest == run.parameters_digest,
                trainings.c.state == "completed",
            )
            .order_by(trainings.c.finished_at.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )


def _enter(connection: Connection, run: Run, own: RowMapping | None) -> str:
    """Enter the training as running and return its id: the one it has if it was begun before on the same terms."""
    same = own is not None and own["params_digest"] == run.parameters_digest
    training_id = own["training_id"] if own is not None and same else f"t{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    values = {
        "training_id": training_id,
        "state": "running",
        "result": None,
        "finished_at": None,
        "project": run.project,
        "kind": run.kind,
        "version_id": run.version_id,
        "params_digest": run.parameters_digest,
        "params": asdict(run.parameters),
        "dag_run_id": run.dag_run_id,
        "champion_version": run.champion.version if run.champion else None,
    }
    if own is None:
        connection.execute(insert(trainings).values(values))
    else:
        # A run cleared and started again on other data is another training: what the first one left is not its own.
        fresh = {} if same else {"mlflow_run_id": None, "model_version": None, "promoted": None, "started_at": now()}
        connection.execute(
            update(trainings).where(trainings.c.training_id == own["training_id"]).values(values | fresh)
        )
    return training_id


def _of_dag_run(connection: Connection, project: str, dag_run_id: str) -> RowMapping | None:
    return (
        connection.execute(
            select(trainings).where(trainings.c.project == project, trainings.c.dag_run_id == dag_run_id)
        )
        .mappings()
        .first()
    )


def _skip(run: Run, done: RowMapping) -> Skip:
    """Say why the run is skipped, with links to the training that did its work."""
    version = f" (version {done['model_version']})" if done["model_version"] else ""
    same = done["dag_run_id"] == run.dag_run_id
    reason = (
        f"this run completed training {done['training_id']}{version} before"
        if same
        else f"dataset and parameters equal those of training {done['training_id']}{version}, completed"
        f" {done['finished_at']:%Y-%m-%d %H:%M} UTC: nothing to do; force trains again"
    )
    mlflow_link = run_url(experiment_id(run.project), done["mlflow_run_id"]) if done["mlflow_run_id"] else None
    link = airflow_run_url(f"{run.project}_{done['kind']}", done["dag_run_id"]) if done["dag_run_id"] else None
    return Skip(
        reason=reason,
        link=link or mlflow_link,
        training_id=done["training_id"],
        version=done["model_version"],
        mlflow_link=mlflow_link,
    )


def airflow_run_url(dag_id: str, dag_run_id: str) -> str:
    """Return the address of a DAG run's page."""
    return f"{settings().airflow_url}/dags/{quote(dag_id)}/runs/{quote(dag_run_id, safe='')}"
