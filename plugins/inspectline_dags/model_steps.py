"""The tasks of `retrain` and `evaluate`, from a dataset version to a decision on promotion.

Each reads the results of earlier steps (`result`), so that the arrows of a DAG show only its order, and imports what it
runs inside the function, so that DAG files parse quickly. A result is a record of `pipelines.steps`, stored in XCom as
JSON.
"""

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from pipelines.config.settings import settings
from pipelines.errors import NotEnoughImages

if TYPE_CHECKING:
    from pipelines.steps import ModelPackage, PackRef, Run, Skip
    from pipelines.tasks.interface import Task

log = logging.getLogger(__name__)
GPU_POOL = "gpu"


def result(context: Any, task_id: str) -> Any:
    """Return the result of an earlier step of this run as JSON, or None."""
    return context["ti"].xcom_pull(task_ids=task_id)


def _run(context: Any) -> "Run":
    from pipelines.steps import Run

    return Run.from_json(result(context, "begin"))


def _pack(context: Any) -> "PackRef":
    from pipelines.steps import PackRef

    return PackRef.from_json(result(context, "pack"))


def _package(context: Any, task_id: str) -> "ModelPackage":
    from pipelines.steps import ModelPackage

    return ModelPackage.from_json(result(context, task_id))


def _task(run: "Run") -> "Task":
    from pipelines.tasks import find_task

    return find_task(run.task)


def _skip(context: Any, skip: "Skip") -> AirflowSkipException:
    """Return the exception that skips the rest of the run; the UI shows its reason and link."""
    context["ti"].xcom_push(key="skipped", value=skip.to_json())
    message = f"{skip.reason}: {skip.link}" if skip.link else skip.reason
    log.warning("Skipped: %s", message)  # Airflow's UI collapses its own line about it
    return AirflowSkipException(message)


def _push_why(context: Any, error: Exception) -> None:
    """Store the error for the requests of the run, where the name of the failed task explains too little."""
    context["ti"].xcom_push(key="why", value=str(error))


def asked_by(context: Any) -> list[int]:
    """Return the requests that the run was started for."""
    return list((context["dag_run"].conf or {}).get("request_ids", []))


@task
def freeze(project: str, **context: Any) -> Any:
    """Write the dataset version: every labelled, undisputed sample, its subset and its annotations."""
    from pipelines.datasets.versions import freeze
    from pipelines.requests import watch
    from pipelines.steps import Skip

    watch.begin(project, "retrain", context["run_id"], asked_by(context))
    try:
        return freeze(project).to_json()
    except NotEnoughImages as error:
        if context["dag_run"].run_type == "scheduled":
            raise _skip(context, Skip(f"no training tonight: {error}")) from None
        _push_why(context, error)
        raise


@task
def begin(**context: Any) -> Any:
    """Enter the training in the catalogue and in MLflow; skip the run if the same was trained before."""
    from pipelines.requests.watch import PARAMETERS
    from pipelines.steps import DatasetVersion
    from pipelines.training.runs import begin

    dataset = DatasetVersion.from_json(result(context, "freeze"))
    asked = {name: context["params"].get(name) for name in PARAMETERS["retrain"]}
    return _begun(begin(dataset, asked, force=bool(asked["force"]), dag_run_id=context["run_id"]), context)


@task(task_id="begin")
def begin_evaluation(project: str, **context: Any) -> Any:
    """Enter the evaluation of the champion in the catalogue and in MLflow; skip the run if there is nothing to do."""
    from pipelines.requests import watch
    from pipelines.training.runs import begin_evaluation

    watch.begin(project, "evaluate", context["run_id"], asked_by(context))
    asked = {name: context["params"].get(name) for name in watch.PARAMETERS["evaluate"]}
    try:
        return _begun(begin_evaluation(project, asked, dag_run_id=context["run_id"]), context)
    except NotEnoughImages as error:
        _push_why(context, error)
        raise


def _begun(run: "Run | Skip", context: Any) -> Any:
    """Return the run, or skip what follows; the buttons lead to MLflow, or to the earlier equal run."""
    from pipelines.steps import Skip

    push = context["ti"].xcom_push
    if isinstance(run, Skip):
        push(key="earlier", value=run.link or "")
        push(key="mlflow", value="")
        raise _skip(context, run)
    push(key="earlier", value="")
    push(key="mlflow", value=run.mlflow_url or "")
    return run.to_json()


@task
def profile(**context: Any) -> Any:
    """Profile the dataset version's descriptors (fg-data-profiling); holds up nothing, stops nothing."""
    from pipelines.datasets.profile import profile

    run = _run(context)
    profiled = profile(run.dataset, run.mlflow_run_id)
    # The report's page in MLflow, which works as long as the run is kept; a signed S3 link expires.
    context["ti"].xcom_push(key="profile", value=f"{run.mlflow_url}/artifacts/profile/profile.html")
    return profiled.to_json()


@task
def pack(**context: Any) -> Any:
    """Decode and resize the dataset version once, into memory-mapped arrays kept in S3."""
    from pipelines.datasets.pack import build

    run = _run(context)
    return build(run.dataset, run.settings.model).to_json()


@task(pool=GPU_POOL, queue=settings().training_queue)
def train(**context: Any) -> Any:
    """Train the network in a subprocess; a killed one goes on from its last checkpoint."""
    from pipelines.tasks.subprocesses import train

    return train(_run(context), _pack(context), log.info).to_json()


@task
def export(**context: Any) -> Any:
    """Export the network to ONNX and compare both on the validation set; a difference stops the run."""
    from pipelines.steps import TrainedModel
    from pipelines.tasks.subprocesses import export

    model = TrainedModel.from_json(result(context, "train"))
    return export(_run(context), _pack(context), model, log.info).to_json()


@task
def calibrate(**context: Any) -> Any:
    """Calibrate on the validation set: the threshold of a detector, the certainties of a classifier."""
    run = _run(context)
    # An evaluation calibrates the champion that it began with, a training the package that it exported.
    exported = _package(context, "export") if run.kind == "retrain" else None
    return _task(run).calibrate(run, _pack(context), exported).to_json()


@task
def evaluate(**context: Any) -> Any:
    """Score the test subsets; log metrics with confidence intervals, and plots, to MLflow."""
    run = _run(context)
    return _task(run).evaluate(run, _pack(context), _package(context, "calibrate")).to_json()


@task
def register(**context: Any) -> Any:
    """Register the package in MLflow, once for a training, as the challenger."""
    from pipelines.registry.register import register
    from pipelines.steps import EvaluationReport

    report = EvaluationReport.from_json(result(context, "evaluate"))
    return register(_run(context), _package(context, "calibrate"), report).to_json()


@task
def gate(**context: Any) -> Any:
    """Compare the challenger with the champion on the same test samples; promote it if it holds up."""
    from pipelines.promotion.gate import decide
    from pipelines.steps import Registration

    decision = decide(_run(context), Registration.from_json(result(context, "register")))
    log.info("%s: %s", "promoted" if decision.promoted else "not promoted", decision.why)
    return decision.to_json()


@task
def complete(**context: Any) -> Any:
    """Enter in the catalogue what came of the run; from now on its images are not new any more."""
    from pipelines.steps import Decision, EvaluationReport, Outcome, Registration
    from pipelines.training.runs import complete

    outcome = Outcome.of(
        _package(context, "calibrate"),
        EvaluationReport.from_json(result(context, "evaluate")),
        Registration.from_json(result(context, "register")),
        Decision.from_json(result(context, "gate")),
    )
    complete(_run(context), outcome)
    return outcome.to_json()
