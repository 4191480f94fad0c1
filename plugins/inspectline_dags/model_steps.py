"""The tasks from a dataset version to a judged model: the function behind each box of `retrain` and `evaluate`.

Each fetches what earlier steps made (`made`), so that the arrows of a DAG show its order and nothing else, and imports
what it runs only when it runs, so that parsing a DAG file stays light.
"""

import logging
from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from pipelines.config.settings import settings
from pipelines.errors import NotEnoughImages

log = logging.getLogger(__name__)
GPU_POOL = "gpu"


def made(context: Any, *task_ids: str) -> list[Any]:
    """Return the results of earlier steps of this run, small dictionaries."""
    return [context["ti"].xcom_pull(task_ids=task_id) for task_id in task_ids]


def _skip(context: Any, reason: str, link: str | None = None, training_id: str | None = None) -> AirflowSkipException:
    """Return what to raise to skip the rest of the run; the reason and its link stay readable in the UI."""
    context["ti"].xcom_push(key="skipped", value={"reason": reason, "link": link, "training_id": training_id})
    said = f"{reason}: {link}" if link else reason
    log.warning("Skipped: %s", said)  # Airflow's own line about it is folded away
    return AirflowSkipException(said)


def _say_why(context: Any, error: Exception) -> None:
    """Leave what went wrong for whoever asked for the run, in words, where its task's name says too little."""
    context["ti"].xcom_push(key="why", value=str(error))


def asked_by(context: Any) -> list[int]:
    """Return the requests that the run was started for."""
    return list((context["dag_run"].conf or {}).get("request_ids", []))


@task
def freeze(project: str, **context: Any) -> Any:
    """Write the dataset version: every labelled, undisputed sample, its subset and its annotations."""
    from pipelines.datasets.versions import freeze
    from pipelines.requests import watch

    watch.begin(project, "retrain", context["run_id"], asked_by(context))
    try:
        return freeze(project)
    except NotEnoughImages as error:
        if context["dag_run"].run_type == "scheduled":
            raise _skip(context, f"no training tonight: {error}") from None
        _say_why(context, error)
        raise


@task
def begin(project: str, **context: Any) -> Any:
    """Enter the training in the catalogue and in MLflow; skip the run if the same was trained before."""
    from pipelines.requests.watch import PARAMETERS
    from pipelines.training.runs import begin

    (dataset,) = made(context, "freeze")
    asked = {name: context["params"].get(name) for name in PARAMETERS["retrain"]}
    return _begun(begin(project, dataset, asked, bool(asked["force"]), context["run_id"]), context)


@task(task_id="begin")
def begin_evaluation(project: str, **context: Any) -> Any:
    """Enter the evaluation of the champion in the catalogue and in MLflow; skip the run if there is nothing to do."""
    from pipelines.requests import watch
    from pipelines.training.runs import begin_evaluation

    watch.begin(project, "evaluate", context["run_id"], asked_by(context))
    asked = {name: context["params"].get(name) for name in watch.PARAMETERS["evaluate"]}
    try:
        return _begun(begin_evaluation(project, context["run_id"], asked), context)
    except NotEnoughImages as error:
        _say_why(context, error)
        raise


def _begun(run: dict[str, Any], context: Any) -> dict[str, Any]:
    """Return the run that has begun, or skip what follows; its buttons lead to MLflow, or to what was done before."""
    skip = run["skip"] or {}
    for key, address in (("earlier", skip.get("link")), ("mlflow", run.get("mlflow_url"))):
        context["ti"].xcom_push(key=key, value=address or "")
    if skip:
        raise _skip(context, skip["reason"], skip["link"], skip["training_id"])
    return run


@task
def profile(**context: Any) -> Any:
    """Profile the dataset version's descriptors (fg-data-profiling); holds up nothing, stops nothing."""
    from pipelines.datasets.profile import profile

    (run,) = made(context, "begin")
    profiled = profile(run)
    # MLflow's page, where the report is too: people reach it for as long as the run is kept, unlike a signed S3 link.
    context["ti"].xcom_push(key="profile", value=f"{run['mlflow_url']}/artifacts/profile/profile.html")
    return profiled


@task
def pack(**context: Any) -> Any:
    """Decode and resize the dataset version once, into memory-mapped arrays kept in S3."""
    from pipelines.datasets.pack import build

    return build(*made(context, "begin"))


@task(pool=GPU_POOL, queue=settings().training_queue)
def train(**context: Any) -> Any:
    """Train the network in a subprocess; a killed one goes on from its last checkpoint."""
    from pipelines.training.step_process import run_module

    run, pack = made(context, "begin", "pack")
    return run_module("pipelines.tasks.anomaly.train", {"run": run, "pack": pack}, log.info)


@task
def export(**context: Any) -> Any:
    """Export the network to ONNX and compare both on the validation set; a difference stops the run."""
    from pipelines.training.step_process import run_module

    run, pack, trained = made(context, "begin", "pack", "train")
    return run_module("pipelines.tasks.anomaly.export", {"run": run, "pack": pack, "trained": trained}, log.info)


@task
def calibrate(**context: Any) -> Any:
    """Set the threshold from the validation set, as the project's policy says."""
    from pipelines.tasks.anomaly.calibrate import calibrate

    (run,) = made(context, "begin")
    # An evaluation judges the champion that it began with; a training what it exported.
    return calibrate(run, run["model"] if "model" in run else made(context, "export")[0])


@task
def evaluate(**context: Any) -> Any:
    """Score the test subsets; log figures with confidence intervals, and pictures, to MLflow."""
    from pipelines.tasks.anomaly.evaluate import evaluate

    return evaluate(*made(context, "begin", "calibrate"))


@task
def register(**context: Any) -> Any:
    """Register the package in MLflow, once for a training, as the challenger."""
    from pipelines.registry.register import register

    return register(*made(context, "begin", "calibrate", "evaluate"))


@task
def gate(**context: Any) -> Any:
    """Compare the challenger with the champion on the same test samples; promote it if it holds up."""
    from pipelines.promotion.gate import decide

    decision = decide(*made(context, "begin", "register"))
    log.info("%s: %s", "promoted" if decision["promoted"] else "not promoted", decision["why"])
    return decision


@task
def complete(**context: Any) -> Any:
    """Enter in the catalogue what came of the run; from now on its images are not new any more."""
    from pipelines.training.runs import complete

    run, package, evaluation, registered, decision = made(context, "begin", "calibrate", "evaluate", "register", "gate")
    outcome = {
        "metrics": evaluation["metrics"],
        "threshold": package["threshold"],
        "policy": package["policy"],
        "notes": [*package["notes"], *evaluation["notes"]],
        "promoted": decision["promoted"],
        "why": decision["why"],
        "version": registered["version"],
    }
    complete(run, outcome)
    return outcome
