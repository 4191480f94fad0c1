"""The ledger of trainings: what began, with what, and how it ended, in the catalogue and as a run in MLflow.

A run of `retrain` or `evaluate` is one training, found again by its `dag_run_id` when a task is retried. One whose
dataset and parameters equal those of a completed training is not begun: it is skipped, with a link to that one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
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
from pipelines.training.code_version import git_revision
from pipelines.training.mlflow_run import end_run, experiment_id, open_run, run_url

# The parts of a project file that a training's outcome depends on; subsets and groups are in the dataset already.
_SETTINGS = {"model", "threshold", "promotion"}
_SERVINGS_OWN = {"threshold": {"review_false_positive_rate"}}


def begin(
    project: str, dataset: dict[str, Any], params: dict[str, Any], force: bool, dag_run_id: str
) -> dict[str, Any]:
    """Enter a training of `project` on `dataset` (what `datasets.freeze` returned) and open its MLflow run.

    `params` are the trigger form's: `epochs`, `time_budget_minutes` (None: the project file's), `start_from` (`scratch`
    or `champion`) and `promote`. Called again for the same `dag_run_id`, it returns the same training.

    Returns the run, which every later step takes. Its `skip` is None, or says why there is nothing to do: `reason`,
    `link`, `training_id`; then nothing was entered. Raises RegistryError if the champion cannot be looked up.
    """
    declared = load_project(project)
    known = {
        "epochs": params.get("epochs") or declared.model.epochs,
        "time_budget_minutes": params.get("time_budget_minutes") or declared.model.time_budget_minutes,
        "start_from": params.get("start_from") or "scratch",
        "promote": params.get("promote") is not False,
    }
    return _begin(declared, "retrain", dataset, known, force, dag_run_id, client.champion(project))


def begin_evaluation(project: str, dag_run_id: str, params: dict[str, Any]) -> dict[str, Any]:
    """Enter an evaluation: the champion's weights, a new dataset version, and so a new threshold and a new version.

    `params` are `promote` and `force`. Returns the run as `begin` does, with `model` for `calibrate`. Without a
    champion there is nothing to evaluate, and the run is skipped. Raises NotEnoughImages as `datasets.freeze` does.
    """
    from pipelines.datasets.versions import freeze

    declared = load_project(project)
    champion = client.champion(project)
    if champion is None:
        reason = f"{project} has no champion to evaluate yet: start {project}_retrain"
        return {"project": project, "skip": {"reason": reason, "link": None, "training_id": None}}
    known = {"promote": params.get("promote") is not False, "champion": champion.version}
    run = _begin(declared, "evaluate", freeze(project), known, bool(params.get("force")), dag_run_id, champion)
    return run | {"model": {"champion": run["champion"]}}


def complete(run: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    """Mark the run's training as completed, its samples as trained on, and end the MLflow run; again changes nothing.

    `outcome` is kept as the training's result; `version` and `promoted` in it become columns. An evaluation trains on
    nothing, so its samples stay new.
    """
    from pipelines.datasets.versions import read_manifest

    ended = {
        "state": "completed",
        "model_version": outcome.get("version"),
        "promoted": outcome.get("promoted"),
        "result": outcome,
        "finished_at": now(),
    }
    hashes = list(read_manifest(run["manifest_uri"])["sha256"]) if run["kind"] == "retrain" else []
    with transaction() as connection:
        connection.execute(
            update(trainings)
            .where(trainings.c.training_id == run["training_id"], trainings.c.state != "completed")
            .values(ended)
        )
        mark_trained(connection, run["project"], hashes, run["version_id"])
    end_run(run["mlflow_run_id"], "FINISHED", {"model_version": str(outcome.get("version") or "none")})
    return {"training_id": run["training_id"], "state": "completed", "version": outcome.get("version")}


def fail(project: str, dag_run_id: str, why: str) -> dict[str, Any] | None:
    """Mark the training of `dag_run_id` as failed and end its MLflow run.

    Returns `training_id` and `mlflow_url`, or None if nothing was begun or it had ended.
    """
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
    return {"training_id": row["training_id"], "mlflow_url": url}


def outcome(training_id: str) -> dict[str, Any]:
    """Return what came of a completed training, as `complete` was given it; nothing of any other."""
    with connect() as connection:
        found = select(trainings.c.result).where(
            trainings.c.training_id == training_id, trainings.c.state == "completed"
        )
        return dict(connection.execute(found).scalar() or {})


def params_digest(kind: str, dataset_digest: str, params: dict[str, Any], declared: dict[str, Any]) -> str:
    """Return the SHA-256 that two trainings share if their dataset, parameters and project settings are equal."""
    content = {"kind": kind, "dataset": dataset_digest, "params": params, "settings": declared}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _begin(
    declared: Project,
    kind: str,
    dataset: dict[str, Any],
    params: dict[str, Any],
    force: bool,
    dag_run_id: str,
    champion: RegisteredVersion | None,
) -> dict[str, Any]:
    chosen = declared.model_dump(mode="json", include=_SETTINGS, exclude=_SERVINGS_OWN)
    run: dict[str, Any] = {
        "project": declared.name,
        "kind": kind,
        "version_id": dataset["version_id"],
        "dataset_digest": dataset["digest"],
        "manifest_uri": dataset["manifest_uri"],
        "counts": dataset.get("counts", {}),
        "notes": list(dataset.get("notes", [])),
        "params": params,
        "params_digest": params_digest(kind, dataset["digest"], params, chosen),
        "settings": chosen,
        "dag_run_id": dag_run_id,
        "champion_version": champion.version if champion else None,
        "champion": {"version": champion.version, "package_sha256": champion.digest} if champion else None,
        "champion_package_uri": champion.tags.get("package_uri") if champion else None,
        "git_revision": git_revision(),
        "airflow_url": airflow_run_url(f"{declared.name}_{kind}", dag_run_id),
        "skip": None,
    }
    with transaction() as connection:
        lock_project(connection, declared.name)
        own = _of_dag_run(connection, declared.name, dag_run_id)
        done = _completed_like(connection, run, force, own)
        if done is None:
            run["training_id"] = _enter(connection, run, own)
    if done is not None:
        return run | {"training_id": done["training_id"], "mlflow_run_id": None, "skip": _skip(run, done)}
    experiment = experiment_id(declared.name)
    run["mlflow_run_id"] = open_run(experiment, run)
    run["mlflow_url"] = run_url(experiment, run["mlflow_run_id"])
    with transaction() as connection:
        connection.execute(
            update(trainings)
            .where(trainings.c.training_id == run["training_id"])
            .values(mlflow_run_id=run["mlflow_run_id"])
        )
    return run


def _completed_like(
    connection: Connection, run: dict[str, Any], force: bool, own: RowMapping | None
) -> RowMapping | None:
    """Return the completed training that makes this one needless: its own, or unless forced its equal."""
    if own is not None and own["state"] == "completed":
        return own
    if force:
        return None
    return (
        connection.execute(
            select(trainings)
            .where(
                trainings.c.project == run["project"],
                trainings.c.params_digest == run["params_digest"],
                trainings.c.state == "completed",
            )
            .order_by(trainings.c.finished_at.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )


def _enter(connection: Connection, run: dict[str, Any], own: RowMapping | None) -> str:
    """Enter the training as running and return its id: the one it has if it was begun before on the same terms."""
    same = own is not None and own["params_digest"] == run["params_digest"]
    training_id = own["training_id"] if own is not None and same else f"t{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    values = {
        "training_id": training_id,
        "state": "running",
        "result": None,
        "finished_at": None,
        **{name: run[name] for name in ("project", "kind", "version_id", "params_digest", "params", "dag_run_id")},
        "champion_version": run["champion_version"],
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


def _skip(run: dict[str, Any], done: RowMapping) -> dict[str, Any]:
    """Say why the run is skipped, with links to the training that did its work."""
    version = f" (version {done['model_version']})" if done["model_version"] else ""
    same = done["dag_run_id"] == run["dag_run_id"]
    reason = (
        f"this run completed training {done['training_id']}{version} before"
        if same
        else f"dataset and parameters equal those of training {done['training_id']}{version}, completed"
        f" {done['finished_at']:%Y-%m-%d %H:%M} UTC: nothing to do; force trains again"
    )
    mlflow_link = run_url(experiment_id(run["project"]), done["mlflow_run_id"]) if done["mlflow_run_id"] else None
    link = airflow_run_url(f"{run['project']}_{done['kind']}", done["dag_run_id"]) if done["dag_run_id"] else None
    return {
        "reason": reason,
        "link": link or mlflow_link,
        "mlflow_link": mlflow_link,
        "training_id": done["training_id"],
        "version": done["model_version"],
    }


def airflow_run_url(dag_id: str, dag_run_id: str) -> str:
    """Return the address of a DAG run's page."""
    return f"{settings().airflow_url}/dags/{quote(dag_id)}/runs/{quote(dag_run_id, safe='')}"
