"""The tasks from a dataset version to a judged model: the function behind each box of `retrain` and `evaluate`.

Each imports what it runs only when it runs, so that parsing a DAG file stays light.
"""

import logging
from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from pipelines.errors import NotEnoughImages
from pipelines.settings import settings

log = logging.getLogger(__name__)
GPU_POOL = "gpu"

# What a step makes: where a DAG is put together, a reference to it; where a step runs, the small dict itself.
Made = Any


def _skip(context: Any, reason: str, link: str | None = None) -> AirflowSkipException:
    """Return what to raise to skip the rest of the run; the reason and its link stay readable in the UI."""
    context["ti"].xcom_push(key="skipped", value={"reason": reason, "link": link})
    said = f"{reason}: {link}" if link else reason
    log.warning("Skipped: %s", said)  # Airflow's own line about it is folded away
    return AirflowSkipException(said)


@task
def freeze(project: str, **context: Any) -> Made:
    """Write the dataset version: every labelled, undisputed sample, its subset and its annotations."""
    from pipelines.datasets import freeze

    try:
        return freeze(project)
    except NotEnoughImages as error:
        if context["dag_run"].run_type == "scheduled":
            raise _skip(context, f"no training tonight: {error}") from None
        raise


@task
def begin(project: str, dataset: Made, **context: Any) -> Made:
    """Enter the training in the catalogue and in MLflow; skip the run if the same was trained before."""
    from pipelines.trainings import begin
    from pipelines.watch import PARAMETERS

    asked = {name: context["params"].get(name) for name in PARAMETERS["retrain"]}
    return _begun(begin(project, dataset, asked, bool(asked["force"]), context["run_id"]), context)


@task(task_id="begin", multiple_outputs=True)
def begin_evaluation(project: str, **context: Any) -> Made:
    """Enter the evaluation of the champion in the catalogue and in MLflow; skip the run if there is nothing to do."""
    from pipelines.trainings import begin_evaluation
    from pipelines.watch import PARAMETERS

    asked = {name: context["params"].get(name) for name in PARAMETERS["evaluate"]}
    return _begun(begin_evaluation(project, context["run_id"], asked), context)


def _begun(run: dict[str, Any], context: Any) -> dict[str, Any]:
    """Return the run that has begun, or skip what follows; its buttons lead to MLflow, or to what was done before."""
    skip = run["skip"] or {}
    for key, address in (("earlier", skip.get("link")), ("mlflow", run.get("mlflow_url"))):
        context["ti"].xcom_push(key=key, value=address or "")
    if skip:
        raise _skip(context, skip["reason"], skip["link"])
    return run


@task
def profile(run: Made, **context: Any) -> Made:
    """Profile the dataset version's descriptors (fg-data-profiling); holds up nothing, stops nothing."""
    from pipelines.profile import profile

    made = profile(run)
    # MLflow's page, where the report is too: people reach it for as long as the run is kept, unlike a signed S3 link.
    context["ti"].xcom_push(key="profile", value=f"{run['mlflow_url']}/artifacts/profile/profile.html")
    return made


@task
def pack(run: Made) -> Made:
    """Decode and resize the dataset version once, into memory-mapped arrays kept in S3."""
    from pipelines.pack import build

    return build(run)


@task(pool=GPU_POOL, queue=settings().training_queue)
def train(run: Made, pack: Made) -> Made:
    """Train the network in a subprocess; a killed one goes on from its last checkpoint."""
    from pipelines.subprocess import run_module

    return run_module("pipelines.train", {"run": run, "pack": pack}, log.info)


@task
def export(run: Made, pack: Made, trained: Made) -> Made:
    """Export the network to ONNX and compare both on the validation set; a difference stops the run."""
    from pipelines.subprocess import run_module

    return run_module("pipelines.export", {"run": run, "pack": pack, "trained": trained}, log.info)


@task
def calibrate(run: Made, model: Made) -> Made:
    """Set the threshold from the validation set, as the project's policy says."""
    from pipelines.calibrate import calibrate

    return calibrate(run, model)


@task
def evaluate(run: Made, package: Made) -> Made:
    """Score the test subsets; log figures with confidence intervals, and pictures, to MLflow."""
    from pipelines.evaluate import evaluate

    return evaluate(run, package)


@task
def register(run: Made, package: Made, evaluation: Made) -> Made:
    """Register the package in MLflow, once for a training, as the challenger."""
    from pipelines.registry import register

    return register(run, package, evaluation)


@task
def gate(run: Made, registered: Made) -> Made:
    """Compare the challenger with the champion on the same test samples; promote it if it holds up."""
    from pipelines.gate import decide

    decision = decide(run, registered)
    log.info("%s: %s", "promoted" if decision["promoted"] else "not promoted", decision["why"])
    return decision


@task
def complete(
    run: Made,
    package: Made,
    evaluation: Made,
    registered: Made,
    decision: Made,
) -> Made:
    """Enter in the catalogue what came of the run; from now on its images are not new any more."""
    from pipelines.trainings import complete

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
